"""An orderly stop: what runs may finish, what does not is kept, and every stream hears its end."""

import threading
from collections.abc import Iterator, Mapping
from typing import Any

import httpx
import pytest
from orchqueue.testing import LiveDaemon, Reply, ScriptedEngine, Setup, daemon, engine
from wire import STREAM, Raw, events, followed, post, shown, submitted, text, the_end, tokens, until

#: Shorter than what the engine takes for a long answer, and longer than for a short one.
DRAIN_MS = 1_200
LONG = Reply("a " * 80, delay_s=0.03)
SHORT = Reply("b " * 20, delay_s=0.01)
#: How an engine must have been launched to be byte-exact.
EXACT = {
    "flash_attn": False,
    "n_batch": 2048,
    "n_ubatch": 512,
    "engine_version": "scripted",
    "model_digest": "0" * 64,
    "device_class": "none",
}


def script(request: Mapping[str, Any]) -> Reply:
    return SHORT if request["prompt"].startswith("short") else LONG


@pytest.fixture
def scripted() -> Iterator[list[ScriptedEngine]]:
    with engine(script) as one, engine(script) as other:
        yield [one, other]


@pytest.fixture
def live(scripted: list[ScriptedEngine]) -> Iterator[LiveDaemon]:
    pool = {
        "id": "scripted",
        "engine": "llamacpp",
        "model": "scripted",
        "ctx": 512,
        "determinism": "strict",
        "replicas": [{"url": one.url, "slots": 1, "declared": EXACT} for one in scripted],
    }
    with LiveDaemon({"server": {"drain_ms": DRAIN_MS}, "pools": [pool]}) as running:
        yield running


# req: ORCH-4050, ORCH-4053
def test_nothing_accepted_is_lost_and_every_stream_ends_once(
    live: LiveDaemon, scripted: list[ScriptedEngine]
) -> None:
    short = submitted(live.url, "short one")
    running = submitted(live.url, "long one")
    until(lambda: all(one.requests for one in scripted))
    # The first of them begins when the short one ends: it is running too when the time is up.
    queued = [submitted(live.url, f"long {number}", determinism="best_effort") for number in range(2)]
    readers = {name: Raw.following(live.url, name) for name in (short, running, *queued)}
    try:
        seen = [readers[running].event_named("token")]
        assert live.stop() == 0
        streams = {name: reader.rest() for name, reader in readers.items()}
    finally:
        for reader in readers.values():
            reader.close()
    ends = {name: the_end(stream) for name, stream in streams.items()}
    assert ends[short].name == "end"
    for name in (running, *queued):
        told = ends[name].data
        assert (told["code"], told["reason"], told["retriable"]) == ("POOL_UNREADY", "shutting_down", True)

    live.start()
    live.wait_ready()
    assert shown(live.url, short)["output"]["text"] == "b " * 20
    for name in (running, *queued):
        whole = events(followed(live.url, name).content)
        assert the_end(whole).name == "end"
        assert text(whole) == "a " * 80
        kept = the_end(whole).data["receipt"]["determinism"]
        assert kept == ("strict" if name == running else "best_effort")
    # A reader goes on where it was.
    seen += tokens(streams[running])
    rest = events(followed(live.url, running, seen[-1].id).content)
    assert text(seen) + text(rest) == "a " * 80
    # Only what had not ended was decoded again.
    prompts = [request["prompt"] for one in scripted for request in one.requests]
    assert prompts.count("short one") == 1


# req: ORCH-4053
def test_daemon_that_drains_admits_nothing_and_finishes_what_it_has() -> None:
    with daemon([Reply("a " * 80, delay_s=0.01)], Setup(slots=1)) as running:
        with Raw.submitting(running.url, {"prompt": "runs"}) as first:
            first.event_named("token")
            queued = submitted(running.url, "queued")
            stopper = threading.Thread(target=running.core.shutdown, args=(10_000,))
            stopper.start()
            try:
                until(lambda: post(running.url, {"prompt": "late"}).status_code == 503)
                refused = post(running.url, {"prompt": "late"}, **STREAM)
                assert (refused.json()["code"], refused.json()["reason"]) == ("POOL_UNREADY", "shutting_down")
                assert refused.json()["retriable"]
                assert int(refused.headers["retry-after"]) >= 1
                with Raw.following(running.url, queued) as second:
                    assert the_end(second.rest()).name == "end"
                assert the_end(first.rest()).name == "end"
            finally:
                stopper.join(20)
        with pytest.raises(httpx.ConnectError):
            post(running.url, {"prompt": "too late"})
