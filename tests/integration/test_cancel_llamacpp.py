"""Cancel on the real llama.cpp, with a model that is slow enough to be caught at it."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from orchqueue.testing import LiveDaemon
from wire import Raw, canceled, events, followed, shown, streamed, the_end, tokens, until, waits_for_state

#: Some 900 tokens: the model prints one a character, and takes a while to read them.
LONG = " ".join(["word"] * 170)


@pytest.fixture(scope="module")
def live(slow_model: Path) -> Iterator[LiveDaemon]:
    pool = {
        "id": "slow",
        "engine": "llamacpp",
        "model": str(slow_model),
        "ctx": 1024,
        "timeouts": {"idle_ms": 30_000},
    }
    with LiveDaemon({"pools": [pool]}) as daemon:
        yield daemon


def idle_again(live: LiveDaemon) -> float:
    """How long a short task takes from here: it gets the only slot once the engine has let go of it."""
    began = time.monotonic()
    assert the_end(streamed(live.url, "Go on.", max_tokens=2)).name == "end"
    return time.monotonic() - began


# req: ORCH-2003, ORCH-4061
def test_cancel_while_the_prompt_is_read(live: LiveDaemon) -> None:
    with Raw.submitting(live.url, {"prompt": LONG, "max_tokens": 50}) as reader:
        task_id = reader.event_named("started").data["task_id"]
        until(lambda: shown(live.url, task_id)["state"] == "started")
        assert canceled(live.url, task_id) == 204
        rest = reader.rest()
    assert the_end(rest).data["code"] == "CANCELED"
    assert tokens(rest) == []
    assert shown(live.url, task_id)["state"] == "canceled"
    assert idle_again(live) < 15


# req: ORCH-2003, ORCH-3026
def test_cancel_while_it_decodes(live: LiveDaemon) -> None:
    with Raw.submitting(live.url, {"prompt": "Tell me.", "max_tokens": 900}) as reader:
        task_id = reader.event_named("started").data["task_id"]
        for _ in range(3):
            reader.event_named("token")
        assert canceled(live.url, task_id) == 204
        here, rest = reader.here(), reader.rest()
    assert the_end([*here, *rest]).data["code"] == "CANCELED"
    assert tokens(rest) == []
    # Far less than the seconds that the rest of its tokens would have taken.
    assert idle_again(live) < 5
    assert the_end(events(followed(live.url, task_id).content)).data["code"] == "CANCELED"


def test_cancel_while_queued_leaves_the_running_one_alone(live: LiveDaemon) -> None:
    with Raw.submitting(live.url, {"prompt": "Tell me.", "max_tokens": 900}) as first:
        running = first.event_named("started").data["task_id"]
        first.event_named("token")
        with Raw.submitting(live.url, {"prompt": "Me too.", "max_tokens": 900}) as second:
            queued = second.event_named("started").data["task_id"]
            assert shown(live.url, queued)["state"] == "queued"
            assert canceled(live.url, queued) == 204
            assert the_end(second.rest()).data["code"] == "CANCELED"
        first.here()
        first.event_named("token")
        assert canceled(live.url, running) == 204
    waits_for_state(live.url, running, "canceled")
