"""Every stream ends with exactly one `end` or `error`, however the engine behind it ends."""

from collections.abc import Mapping
from itertools import count
from typing import Any

import pytest
from orchqueue.testing import Fault, Reply, Setup, daemon
from wire import Event, events, followed, post, replica, shown, streamed, submitted, the_end, tokens

#: Short patience, so that what hangs is told soon; and no second attempt for a stream that has begun.
IMPATIENT = {
    "determinism": "best_effort",
    "timeouts": {"first_token_ms": 500, "idle_ms": 500, "wall_ms": 5_000},
}
SAID = "one two three four"


def error_of(stream: list[Event]) -> dict[str, Any]:
    last = the_end(stream)
    assert last.name == "error"
    return last.data


# req: ORCH-4004, ORCH-4005
@pytest.mark.parametrize(
    ("fault", "code", "reason"),
    [
        (Fault.EOF, "WORKER_RESET", None),
        (Fault.DIE, "WORKER_RESET", None),
        (Fault.ERROR_EVENT, "WORKER_RESET", None),
        (Fault.GARBAGE, "WORKER_RESET", None),
        (Fault.HANG, "DECODE_TIMEOUT", "idle"),
    ],
    ids=lambda value: getattr(value, "value", value),
)
def test_fault_in_mid_stream_is_one_error_after_the_tokens(
    fault: Fault, code: str, reason: str | None
) -> None:
    with daemon([Reply(SAID, fault=fault, after=2)], Setup(pool=IMPATIENT)) as running:
        stream = streamed(running.url)
        error = error_of(stream)
        assert (error["code"], error.get("reason"), error["retriable"]) == (code, reason, True)
        assert [event.data["t"] for event in tokens(stream)] == ["one", " two"]
        # Whoever comes later is told the same, and so is who only asks.
        task_id = stream[0].data["task_id"]
        later = events(followed(running.url, task_id).content)
        assert the_end(later).raw == the_end(stream).raw
        assert shown(running.url, task_id)["error"]["code"] == code
        assert len(running.engine.requests) == 1


# req: ORCH-3016
@pytest.mark.parametrize("fault", [Fault.EOF, Fault.GARBAGE, Fault.ERROR_EVENT, Fault.DIE, Fault.FAIL])
def test_replica_that_fails_before_its_first_token_is_left_for_another(fault: Fault) -> None:
    turns = count()

    def script(_: Mapping[str, Any]) -> Reply:
        return Reply(SAID, fault=fault) if next(turns) == 0 else Reply(SAID)

    with daemon(script, Setup(replicas=2)) as running:
        stream = streamed(running.url)
        assert the_end(stream).name == "end"
        attempts = shown(running.url, stream[0].data["task_id"])["attempts"]
        assert [attempt["outcome"] for attempt in attempts] == ["failed", "finished"]
        assert attempts[0]["replica_id"] != attempts[1]["replica_id"]


# req: ORCH-2006
def test_task_that_fails_everywhere_is_told_replica_exhausted() -> None:
    with daemon([Reply(fault=Fault.FAIL)], Setup(replicas=2)) as running:
        error = error_of(streamed(running.url))
        assert (error["code"], error["retriable"]) == ("REPLICA_EXHAUSTED", True)
        assert sum(len(engine.requests) for engine in running.engines) == 3


# req: ORCH-3008
def test_busy_replica_is_left_alone_and_the_task_finishes_elsewhere() -> None:
    turns = count()

    def script(_: Mapping[str, Any]) -> Reply:
        return Reply(fault=Fault.BUSY) if next(turns) == 0 else Reply(SAID)

    with daemon(script, Setup(replicas=2)) as running:
        stream = streamed(running.url)
        assert the_end(stream).name == "end"
        assert sorted(len(engine.requests) for engine in running.engines) == [1, 1]


def test_only_replica_being_busy_is_waited_for() -> None:
    with daemon([Reply(fault=Fault.BUSY), SAID]) as running:
        stream = streamed(running.url)
        assert the_end(stream).name == "end"
        assert len(running.engine.requests) == 2


# req: ORCH-3015
def test_context_overflow_is_the_client_s_and_speaks_not_against_the_replica() -> None:
    with daemon([Reply(fault=Fault.CONTEXT_OVERFLOW), SAID]) as running:
        stream = streamed(running.url)
        error = error_of(stream)
        assert (error["code"], error["reason"], error["retriable"]) == (
            "INVALID_PARAMS",
            "context_overflow",
            False,
        )
        assert replica(running)["ready"]
        assert shown(running.url, stream[0].data["task_id"])["attempts"][0]["outcome"] == "refused"
        assert the_end(streamed(running.url)).name == "end"
        assert len(running.engine.requests) == 2


# req: ORCH-3016
def test_hang_before_the_first_token_is_told_as_such() -> None:
    with daemon([Reply(fault=Fault.HANG), SAID], Setup(pool=IMPATIENT)) as running:
        stream = streamed(running.url)
        error = error_of(stream)
        assert (error["code"], error["reason"]) == ("DECODE_TIMEOUT", "first_token")
        assert tokens(stream) == []
        # The engine was hung up on, so its slot serves again.
        assert the_end(streamed(running.url)).name == "end"
        assert running.engine.aborted == 1


# req: ORCH-3016
def test_steady_stream_that_takes_too_long_ends_at_the_wall_time() -> None:
    limits = {"timeouts": {"first_token_ms": 1_000, "idle_ms": 1_000, "wall_ms": 700}}
    with daemon([Reply("a " * 400, delay_s=0.02)], Setup(pool=limits)) as running:
        stream = streamed(running.url, max_tokens=400)
        error = error_of(stream)
        assert (error["code"], error["reason"]) == ("DECODE_TIMEOUT", "wall")
        assert 5 < len(tokens(stream)) <= 35


# req: ORCH-3016
def test_time_in_the_queue_does_not_count_against_a_task() -> None:
    limits = {"timeouts": {"first_token_ms": 1_000, "idle_ms": 1_000, "wall_ms": 1_600}}
    slow = Reply("a b c d e f", delay_s=0.15)
    with daemon([slow, slow, "quick"], Setup(pool=limits)) as running:
        waiting = [submitted(running.url, f"Number {i}") for i in range(3)]
        for task_id in waiting:
            assert the_end(events(followed(running.url, task_id).content)).name == "end"


def test_engine_s_refusal_has_one_status_for_a_client_that_waits() -> None:
    script = [Reply(fault=Fault.CONTEXT_OVERFLOW), Reply(SAID, fault=Fault.EOF, after=1)]
    with daemon(script, Setup(pool=IMPATIENT)) as running:
        refused = post(running.url, {"prompt": "Hi", "wait": True})
        assert (refused.status_code, refused.json()["code"]) == (400, "INVALID_PARAMS")
        lost = post(running.url, {"prompt": "Hi", "wait": True})
        assert (lost.status_code, lost.json()["code"]) == (502, "WORKER_RESET")
