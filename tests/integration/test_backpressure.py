"""A queue that is full and a deadline that can't be met: refused at once, with the way on."""

from typing import Any

import httpx
import pytest
from orchqueue.testing import Fault, Reply, ScriptedDaemon, Setup, daemon
from wire import STREAM, Raw, canceled, events, post, shown, streamed, submitted, the_end, until

TIGHT = {
    "classes": [
        {"name": "interactive", "weight": 4, "capacity": 2, "full_policy": "reject"},
        {"name": "batch", "weight": 1, "capacity": 2, "full_policy": "drop-lru"},
        {"name": "idle", "weight": 1, "capacity": 2, "full_policy": "shed-low-priority"},
    ]
}
HANG = Reply(fault=Fault.HANG)


def filled(running: ScriptedDaemon, **fields: Any) -> list[str]:
    """Occupies the slot and fills the queue of a class; the ids of those that wait."""
    submitted(running.url, "occupies the slot")
    until(lambda: running.engine.requests)
    return [submitted(running.url, f"waits {number}", **fields) for number in range(2)]


def assert_backpressure(answer: httpx.Response, code: str, label: str) -> None:
    told = answer.json()
    assert (answer.status_code, told["code"], told["policy_label"]) == (429, code, label)
    assert told["retriable"]
    assert int(answer.headers["retry-after"]) >= 1
    assert int(answer.headers["x-backoff-ms"]) == told["retry_after_ms"]
    assert int(answer.headers["x-queue-position"]) == 2
    assert int(answer.headers["x-queue-eta-ms"]) >= 0


# req: ORCH-2007, ORCH-3005
def test_full_queue_rejects_with_429_and_tells_when_to_come_back() -> None:
    with daemon([HANG], Setup(settings=TIGHT)) as running:
        waiting = filled(running)
        assert_backpressure(post(running.url, {"prompt": "too many"}), "ADMISSION_REJECT", "reject")
        # The same at the other doors, before any stream begins.
        one_trip = post(running.url, {"prompt": "too many"}, **STREAM)
        assert_backpressure(one_trip, "ADMISSION_REJECT", "reject")
        chat = {"messages": [{"role": "user", "content": "too many"}], "model": "scripted"}
        openai = httpx.post(f"{running.url}/v1/chat/completions", json=chat, trust_env=False)
        assert (openai.status_code, int(openai.headers["x-queue-position"])) == (429, 2)
        assert [shown(running.url, task_id)["state"] for task_id in waiting] == ["queued"] * 2


def test_refused_id_is_not_taken() -> None:
    body = {"prompt": "too many", "task_id": "7b0c5a3e-6f0d-4c3b-9d63-0f6f1b1f7a11"}
    with daemon([HANG, HANG, HANG, "there is room now"], Setup(settings=TIGHT)) as running:
        waiting = filled(running)
        assert post(running.url, body).status_code == 429
        answer = httpx.get(f"{running.url}/v1/tasks/{body['task_id']}", trust_env=False)
        assert answer.status_code == 404
        canceled(running.url, waiting[0])
        assert post(running.url, body).status_code == 202


def test_wait_that_is_told_follows_from_what_was_measured() -> None:
    """A constant would be the same for a quick engine and for a slow one."""
    told = []
    for delay_s in (0.005, 0.1):
        script = [Reply("a b c d e", delay_s=delay_s)] * 4 + [HANG]
        with daemon(script, Setup(settings=TIGHT)) as running:
            for _ in range(4):
                assert the_end(streamed(running.url)).name == "end"
            until(lambda: len(running.engine.requests) == 4)
            submitted(running.url)
            until(lambda: len(running.engine.requests) == 5)
            [submitted(running.url) for _ in range(2)]
            answer = post(running.url, {"prompt": "too many"})
            assert answer.status_code == 429
            told.append(int(answer.headers["x-backoff-ms"]))
    quick, slow = told
    assert quick * 3 < slow


# req: ORCH-3004
def test_classes_are_full_each_for_itself() -> None:
    with daemon([HANG], Setup(settings=TIGHT)) as running:
        filled(running)
        assert post(running.url, {"prompt": "other queue", "priority": "batch"}).status_code == 202


# req: ORCH-3005
def test_drop_lru_ends_the_oldest_on_its_stream() -> None:
    with daemon([HANG], Setup(settings=TIGHT)) as running:
        oldest, newer = filled(running, priority="batch")
        with Raw.following(running.url, oldest) as reader:
            reader.event_named("started")
            newest = submitted(running.url, "goes in", priority="batch")
            last = the_end(reader.rest())
        assert (last.name, last.data["code"]) == ("error", "QUEUE_FULL_DROP_LRU")
        assert last.data["retriable"]
        assert last.data["policy_label"] == "drop-lru"
        assert last.data["retry_after_ms"] > 0
        states = [shown(running.url, task_id)["state"] for task_id in (oldest, newer, newest)]
        assert states == ["failed", "queued", "queued"]


# req: ORCH-3005
def test_shed_low_priority_lets_the_lowest_class_give_way() -> None:
    classes = [
        {"name": "interactive", "weight": 4, "capacity": 2, "full_policy": "shed-low-priority"},
        {"name": "batch", "weight": 1, "capacity": 2, "full_policy": "reject"},
    ]
    with daemon([HANG], Setup(settings={"classes": classes})) as running:
        filled(running)
        low = [submitted(running.url, f"low {number}", priority="batch") for number in range(2)]
        accepted = post(running.url, {"prompt": "one more"})
        assert accepted.status_code == 202
        states = sorted(shown(running.url, task_id)["state"] for task_id in low)
        assert states == ["failed", "queued"]


@pytest.mark.parametrize("deadline_ms", [1, 300])
def test_deadline_that_passes_in_the_queue_ends_the_task_there(deadline_ms: int) -> None:
    with daemon([HANG]) as running:
        submitted(running.url, "occupies the slot")
        until(lambda: running.engine.requests)
        stream = streamed(running.url, deadline_ms=deadline_ms)
        last = the_end(stream)
        assert (last.data["code"], last.data["retriable"]) == ("DEADLINE_UNMET", False)
        assert len(running.engine.requests) == 1


def test_deadline_that_can_t_be_met_is_refused_before_the_queue() -> None:
    words = Reply("a b c d e", delay_s=0.1)
    with daemon([words, words, HANG]) as running:
        for _ in range(2):
            assert the_end(streamed(running.url, max_tokens=5)).name == "end"
        submitted(running.url, "occupies the slot", max_tokens=5)
        [submitted(running.url, f"waits {number}", max_tokens=5) for number in range(4)]
        refused = post(running.url, {"prompt": "late", "deadline_ms": 600, "max_tokens": 5})
        assert (refused.status_code, refused.json()["code"]) == (422, "DEADLINE_UNMET")
        assert not refused.json()["retriable"]
        assert post(running.url, {"prompt": "in time", "deadline_ms": 60_000}).status_code == 202


def test_task_that_has_started_is_never_ended_for_its_deadline() -> None:
    words = Reply("a " * 60, delay_s=0.01)
    with daemon([words]) as running:
        stream = events(post(running.url, {"prompt": "Hi", "deadline_ms": 200}, **STREAM).content)
        assert the_end(stream).name == "end"
        assert the_end(stream).data["decode_ms"] > 300
