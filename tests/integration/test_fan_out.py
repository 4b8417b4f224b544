"""One transcript, many readers: all read the same bytes, from wherever they left off."""

import asyncio
from collections.abc import Iterator

import httpx
import pytest
from orchqueue._core import output_digest
from orchqueue.testing import Fault, Reply, ScriptedDaemon, Setup, daemon
from wire import (
    PATIENCE_S,
    STREAM,
    Event,
    Raw,
    events,
    followed,
    post,
    submitted,
    text,
    the_end,
    tokens,
)

READERS = 50
#: Characters of one to four bytes, some inside a word.
SAID = ["snow", " fällt", " über", " 東京", " 🌨", "!", "\n"]
BODY = {"prompt": "Snow", "seed": 11, "task_id": "7b0c5a3e-6f0d-4c3b-9d63-0f6f1b1f7a11"}


def told(stream: list[Event]) -> bytes:
    """The bytes that must be equal for every reader: all but `started` and `metrics`."""
    return b"".join(event.raw for event in stream if event.name not in ("started", "metrics"))


# req: ORCH-2002
async def test_fifty_readers_get_identical_bytes_from_the_first_token_on() -> None:
    words = Reply([f"{number} " for number in range(120)], delay_s=0.01)
    limits = httpx.Limits(max_connections=READERS + 1)
    with daemon([words]) as running:
        task_id = submitted(running.url, max_tokens=200)
        path = f"{running.url}/v1/tasks/{task_id}/stream"
        async with httpx.AsyncClient(timeout=PATIENCE_S, limits=limits, trust_env=False) as client:
            answers = await asyncio.gather(*(client.get(path) for _ in range(READERS)))
        streams = [events(answer.content) for answer in answers]
        assert text(streams[0]) == "".join(words.tokens())
        assert {told(stream) for stream in streams} == {told(streams[0])}
        assert len(running.engine.requests) == 1
        # So does whoever comes when all is over.
        late = events(followed(running.url, task_id).content)
        assert told(late) == told(streams[0])


@pytest.fixture(scope="module")
def told_once() -> Iterator[tuple[ScriptedDaemon, list[Event]]]:
    """A daemon with one task that has ended, and its stream."""
    with daemon([Reply(SAID)]) as running:
        yield running, events(post(running.url, BODY, **STREAM).content)


def rest_after(running: ScriptedDaemon, task_id: str, last: str) -> list[Event]:
    answer = followed(running.url, task_id, last)
    assert answer.status_code == 200, answer.text
    stream = events(answer.content)
    assert stream[0].name == "started"
    assert stream[0].data["resumed_from"] == int(last.partition("-")[0])
    return stream


# req: ORCH-4018
def test_resume_at_every_event_gives_the_rest(told_once: tuple[ScriptedDaemon, list[Event]]) -> None:
    running, stream = told_once
    task_id, said = stream[0].data["task_id"], tokens(stream)
    assert [event.data["t"] for event in said] == SAID
    for place, event in enumerate(said):
        rest = rest_after(running, task_id, event.id or "")
        assert told(rest) == told([*said[place + 1 :], stream[-1]])


# req: ORCH-4018, ORCH-4015
def test_resume_at_every_character_gives_the_rest(told_once: tuple[ScriptedDaemon, list[Event]]) -> None:
    """A reader that another daemon had served may have had its events cut elsewhere."""
    running, stream = told_once
    task_id, whole = stream[0].data["task_id"], "".join(SAID)
    request_digest = the_end(stream).data["receipt"]["request_digest"]
    for place in range(len(whole) + 1):
        seen = whole[:place].encode()
        last = f"{len(seen)}-{output_digest(request_digest, seen)[:16]}"
        rest = rest_after(running, task_id, last)
        assert whole[:place] + text(rest) == whole
        assert rest[-1].raw == stream[-1].raw


def test_resume_at_the_terminal_says_that_there_is_no_more(
    told_once: tuple[ScriptedDaemon, list[Event]],
) -> None:
    running, stream = told_once
    answer = followed(running.url, stream[0].data["task_id"], stream[-1].id)
    assert (answer.status_code, answer.content) == (204, b"")


# req: ORCH-4018
@pytest.mark.parametrize(
    ("last", "status", "code"),
    [
        ("4-0000000000000000", 409, "DETERMINISM_DIVERGED"),
        ("7-0000000000000000", 409, "DETERMINISM_DIVERGED"),
        ("9999-0000000000000000", 409, "DETERMINISM_DIVERGED"),
        ("4-0000000000000000-end", 409, "DETERMINISM_DIVERGED"),
        ("4", 400, "INVALID_PARAMS"),
        ("-1-0000000000000000", 400, "INVALID_PARAMS"),
        ("4-00000000000000zz", 400, "INVALID_PARAMS"),
    ],
)
def test_place_that_is_none_of_the_stream_is_refused(
    told_once: tuple[ScriptedDaemon, list[Event]], last: str, status: int, code: str
) -> None:
    running, stream = told_once
    answer = followed(running.url, stream[0].data["task_id"], last)
    assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_place_inside_a_character_is_refused(told_once: tuple[ScriptedDaemon, list[Event]]) -> None:
    running, stream = told_once
    seen = "snow fä".encode()[:-1]
    digest = output_digest(the_end(stream).data["receipt"]["request_digest"], seen)
    answer = followed(running.url, stream[0].data["task_id"], f"{len(seen)}-{digest[:16]}")
    assert answer.status_code == 409


def test_place_that_is_not_decoded_yet_is_waited_for(
    told_once: tuple[ScriptedDaemon, list[Event]],
) -> None:
    """As after a lost daemon: the task runs again, and its reader has seen more than there is."""
    _, stream = told_once
    said = tokens(stream)
    with daemon([Reply(SAID, delay_s=0.05)]) as again:
        answer = post(again.url, BODY, **STREAM, **{"last-event-id": said[3].id or ""})
        assert told(events(answer.content)[:-1]) == told(said[4:])
    with daemon([Reply("something else entirely, of course", delay_s=0.02)]) as other:
        answer = post(other.url, BODY, **STREAM, **{"last-event-id": said[3].id or ""})
        assert the_end(events(answer.content)).data["code"] == "DETERMINISM_DIVERGED"


# req: ORCH-2002
def test_task_that_waits_in_the_queue_is_told_its_metrics_every_second() -> None:
    with daemon([Reply(fault=Fault.HANG)]) as running:
        submitted(running.url)
        with Raw.submitting(running.url, {"prompt": "queued"}) as reader:
            assert reader.event_named("started").data["queue_position"] == 0
            metrics = [reader.event_named("metrics") for _ in range(2)]
            assert [event.data["queue_depth"] for event in metrics] == [1, 1]
            assert all(event.id is None for event in metrics)


# req: ORCH-4007
def test_silent_openai_stream_carries_comments() -> None:
    body = {"messages": [{"role": "user", "content": "Hi"}], "stream": True, "model": "scripted"}
    beats = Setup(settings={"server": {"heartbeat_ms": 100}})
    with daemon([Reply(fault=Fault.HANG)], beats) as running:
        with Raw.submitting(running.url, body, "/v1/chat/completions") as reader:
            for _ in range(3):
                reader.event_named(":")
