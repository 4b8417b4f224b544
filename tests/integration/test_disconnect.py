"""What a client that goes away does to its task: `on_disconnect`, and the grace in which it may come back."""

import time

from orchqueue.testing import Fault, Reply, Setup, daemon
from wire import Raw, events, followed, shown, submitted, text, the_end, until, waits_for_state

GRACE_MS = 400
QUICK = Setup(settings={"server": {"grace_ms": GRACE_MS}})
PATIENT = Setup(settings={"server": {"grace_ms": 60_000}})
WORDS = Reply("a " * 80, delay_s=0.01)
CHAT = "/v1/chat/completions"


# req: ORCH-4006
def test_task_that_was_accepted_is_kept_when_its_reader_leaves() -> None:
    with daemon([WORDS], QUICK) as running:
        task_id = submitted(running.url)
        with Raw.following(running.url, task_id) as reader:
            reader.event_named("token")
        assert waits_for_state(running.url, task_id, "finished")["output"]["text"] == "a " * 80
        assert running.engine.aborted == 0


# req: ORCH-4006
def test_one_trip_task_is_canceled_after_the_grace() -> None:
    with daemon([WORDS], QUICK) as running:
        with Raw.submitting(running.url, {"prompt": "Hi"}) as reader:
            task_id = reader.event_named("started").data["task_id"]
            reader.event_named("token")
        left = time.monotonic()
        until(lambda: running.engine.aborted == 1, within_s=GRACE_MS / 1000 + 2)
        assert running.engine.hang_ups[0] - left >= GRACE_MS / 1000 * 0.9
        assert shown(running.url, task_id)["state"] == "canceled"


def test_reader_that_comes_back_within_the_grace_saves_its_task() -> None:
    with daemon([WORDS], QUICK) as running:
        with Raw.submitting(running.url, {"prompt": "Hi"}) as reader:
            task_id = reader.event_named("started").data["task_id"]
            seen = reader.event_named("token")
        rest = events(followed(running.url, task_id, seen.id).content)
        assert the_end(rest).name == "end"
        assert seen.data["t"] + text(rest) == "a " * 80
        assert running.engine.aborted == 0


def test_second_reader_keeps_the_task_of_a_first_one_that_left() -> None:
    with daemon([WORDS], QUICK) as running, Raw.submitting(running.url, {"prompt": "Hi"}) as first:
        task_id = first.event_named("started").data["task_id"]
        with Raw.following(running.url, task_id) as second:
            second.event_named("token")
            first.close()
            assert the_end(second.rest()).name == "end"


def test_one_trip_task_that_asks_to_be_kept_is_kept() -> None:
    with daemon([WORDS], QUICK) as running:
        with Raw.submitting(running.url, {"prompt": "Hi", "on_disconnect": "keep"}) as reader:
            task_id = reader.event_named("started").data["task_id"]
            reader.event_named("token")
        waits_for_state(running.url, task_id, "finished")


def test_accepted_task_that_asks_for_it_is_canceled_once_its_last_reader_left() -> None:
    with daemon([WORDS], QUICK) as running:
        task_id = submitted(running.url, on_disconnect="cancel")
        with Raw.following(running.url, task_id) as reader:
            reader.event_named("token")
        waits_for_state(running.url, task_id, "canceled")


def test_reader_that_leaves_while_the_task_is_queued_counts_too() -> None:
    with daemon([Reply(fault=Fault.HANG), "not for you"], QUICK) as running:
        submitted(running.url)
        with Raw.submitting(running.url, {"prompt": "queued"}) as reader:
            task_id = reader.event_named("started").data["task_id"]
            assert shown(running.url, task_id)["state"] == "queued"
        waits_for_state(running.url, task_id, "canceled")
        assert len(running.engine.requests) == 1


def test_client_that_waits_for_the_whole_answer_and_hangs_up_counts_too() -> None:
    with daemon([WORDS], QUICK) as running:
        with Raw(running.url, "POST /v1/tasks", {"prompt": "Hi", "wait": True}):
            until(lambda: running.engine.requests)
        left = time.monotonic()
        until(lambda: running.engine.aborted == 1, within_s=GRACE_MS / 1000 + 2)
        assert running.engine.hang_ups[0] - left >= GRACE_MS / 1000 * 0.9


# req: ORCH-4006
def test_openai_door_cancels_at_once() -> None:
    body = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 200, "model": "scripted"}
    with daemon([Reply("a " * 1000, delay_s=0.01)], PATIENT) as running:
        with Raw.submitting(running.url, {**body, "stream": True}, CHAT) as reader:
            assert reader.answered().status == 200
            until(lambda: running.engine.requests)
        until(lambda: running.engine.aborted == 1, within_s=2)
        with Raw(running.url, f"POST {CHAT}", body):
            until(lambda: len(running.engine.requests) == 2)
        until(lambda: running.engine.aborted == 2, within_s=2)
