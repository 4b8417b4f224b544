"""The same id with the same body is the same task, whenever it is sent again: never a second decode."""

from collections.abc import Iterator

import pytest
from orchqueue.testing import Fault, LiveDaemon, Reply, ScriptedEngine, Setup, daemon, engine
from wire import STREAM, Raw, events, post, shown, submitted, the_end, until, waits_for_state

TASK = "7b0c5a3e-6f0d-4c3b-9d63-0f6f1b1f7a11"
BODY = {"prompt": "Snow", "seed": 11, "task_id": TASK}
WORDS = Reply("a " * 40, delay_s=0.01)


def test_sent_again_while_queued_it_is_the_one_that_waits() -> None:
    with daemon([Reply(fault=Fault.HANG), "only once"]) as running:
        first = submitted(running.url)
        assert post(running.url, BODY).status_code == 202
        assert shown(running.url, TASK)["state"] == "queued"
        again = post(running.url, BODY)
        assert (again.status_code, again.json()["task_id"]) == (202, TASK)
        assert again.json()["queue_position"] == 0
        with Raw.submitting(running.url, BODY) as reader:
            reader.event_named("started")
            cancel = Raw(running.url, f"POST /v1/tasks/{first}/cancel")
            with cancel:
                assert cancel.answered().status == 204
            assert the_end(reader.rest()).name == "end"
        assert len(running.engine.requests) == 2


def test_sent_again_while_it_runs_it_is_the_one_that_runs() -> None:
    with daemon([WORDS]) as running:
        assert post(running.url, BODY).status_code == 202
        until(lambda: running.engine.requests)
        whole = events(post(running.url, BODY, **STREAM).content)
        assert the_end(whole).name == "end"
        waited = post(running.url, {**BODY, "wait": True})
        assert (waited.status_code, waited.json()["output"]["text"]) == (200, "a " * 40)
        assert len(running.engine.requests) == 1


# req: ORCH-4002
def test_sent_again_after_its_end_the_stored_stream_comes() -> None:
    with daemon([WORDS]) as running:
        first = events(post(running.url, BODY, **STREAM).content)
        again = events(post(running.url, BODY, **STREAM).content)
        assert [event.raw for event in again if event.id] == [event.raw for event in first if event.id]
        assert len(running.engine.requests) == 1


def test_keys_of_the_body_may_stand_in_another_order() -> None:
    with daemon() as running:
        assert post(running.url, BODY).status_code == 202
        assert post(running.url, dict(reversed(BODY.items()))).status_code == 202
        waits_for_state(running.url, TASK, "finished")
        assert len(running.engine.requests) == 1


# req: ORCH-4002
@pytest.mark.parametrize(
    "change", [{"prompt": "Rain"}, {"seed": 12}, {"max_tokens": 3}, {"priority": "batch"}]
)
def test_another_body_is_a_conflict(change: dict[str, object]) -> None:
    with daemon() as running:
        assert post(running.url, BODY).status_code == 202
        other = post(running.url, {**BODY, **change})
        assert (other.status_code, other.json()["code"], other.json()["retriable"]) == (
            409,
            "CONFLICT",
            False,
        )
        waits_for_state(running.url, TASK, "finished")
        assert post(running.url, {**BODY, **change}).status_code == 409
        assert len(running.engine.requests) == 1


# req: ORCH-4002
def test_task_that_ended_with_a_retriable_error_is_admitted_again() -> None:
    script = [Reply("one two", fault=Fault.EOF, after=1), "all of it"]
    with daemon(script, Setup(pool={"determinism": "best_effort"})) as running:
        lost = the_end(events(post(running.url, BODY, **STREAM).content))
        assert (lost.data["code"], lost.data["retriable"]) == ("WORKER_RESET", True)
        again = post(running.url, {**BODY, "wait": True})
        assert again.json()["output"]["text"] == "all of it"
        assert len(running.engine.requests) == 2
        # From now on this is its end.
        assert post(running.url, {**BODY, "wait": True}).json()["output"]["text"] == "all of it"
        assert len(running.engine.requests) == 2


def test_task_that_was_canceled_stays_canceled() -> None:
    with daemon([WORDS]) as running:
        with Raw.submitting(running.url, BODY) as reader:
            reader.event_named("token")
            with Raw(running.url, f"POST /v1/tasks/{TASK}/cancel") as cancel:
                assert cancel.answered().status == 204
        again = the_end(events(post(running.url, BODY, **STREAM).content))
        assert again.data["code"] == "CANCELED"
        assert len(running.engine.requests) == 1


@pytest.fixture
def scripted() -> Iterator[ScriptedEngine]:
    rain = [Reply("one two", fault=Fault.EOF, after=1), Reply("all of it")]
    script = {"Snow": lambda: WORDS, "Rain": lambda: rain.pop(0), "Sun": lambda: Reply("shines")}
    with engine(lambda request: script[request["prompt"]]()) as running:
        yield running


# req: ORCH-4002, ORCH-4051
def test_sent_again_after_a_restart_it_is_still_the_same(scripted: ScriptedEngine) -> None:
    def decoded() -> list[str]:
        return [request["prompt"] for request in scripted.requests if request["prompt"] != "Sun"]

    replica = {"url": scripted.url, "slots": 1}
    pool = {"id": "scripted", "engine": "llamacpp", "model": "scripted", "ctx": 512, "replicas": [replica]}
    retried = {**BODY, "task_id": "0f8fad5b-d9cb-469f-a165-70867728950e", "prompt": "Rain"}
    with LiveDaemon({"pools": [pool]}) as live:
        first = events(post(live.url, BODY, **STREAM).content)
        assert the_end(first).name == "end"
        assert the_end(events(post(live.url, retried, **STREAM).content)).name == "error"
        # The journal is written in order: what is durable with this 202 is all that came before it.
        submitted(live.url, "Sun")
        live.kill()
        live.start()
        live.wait_ready()
        assert post(live.url, {**BODY, "seed": 12}).status_code == 409
        again = events(post(live.url, BODY, **STREAM).content)
        assert again[-1].raw == first[-1].raw
        assert decoded() == ["Snow", "Rain"]
        assert post(live.url, {**retried, "wait": True}).json()["output"]["text"] == "all of it"
        assert decoded() == ["Snow", "Rain", "Rain"]
