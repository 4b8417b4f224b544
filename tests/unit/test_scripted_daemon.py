"""The in-process daemon that users test with: the real front door before an engine that does as told."""

from typing import Any

import pytest
from orchqueue import AsyncClient, Error, Retry, Token, errors
from orchqueue.determinism.verify import Evidence, parse_keys, verify
from orchqueue.testing import Fault, Reply, Setup, daemon

ONCE = Retry(attempts=1)
#: One attempt and short patience: failures are told at once.
IMPATIENT = Setup(
    settings={"attempts": {"max": 1}},
    pool={"timeouts": {"first_token_ms": 500, "idle_ms": 500, "wall_ms": 5000}},
)


def test_the_script_is_streamed_word_by_word() -> None:
    with daemon(["Hello there, you."]) as running, running.client() as client:
        stream = client.stream("Hi", seed=7)
        tokens = [event.text for event in stream if isinstance(event, Token)]
        assert tokens == ["Hello", " there,", " you."]
        assert stream.text == "Hello there, you."
        assert running.engine.requests[0]["prompt"] == "Hi"
        assert running.engine.requests[0]["seed"] == 7
        assert running.engine.requests[0]["cache_prompt"] is False


def test_run_waits_for_the_whole_answer() -> None:
    with daemon(["Hello there."]) as running, running.client() as client:
        task = client.run("Hi")
        assert task["state"] == "finished"
        assert task["output"]["text"] == "Hello there."
        assert task["output"]["finish_reason"] == "stop"


# req: ORCH-4016
def test_the_receipt_verifies() -> None:
    with daemon(["Hello there."]) as running, running.client() as client:
        task = client.run("Hi", seed=7, max_tokens=8)
        evidence = Evidence(task={"prompt": "Hi", "seed": 7, "max_tokens": 8}, output=task["output"])
        verification = verify(client.receipt(task["task_id"]), parse_keys(client.receipt_keys()), evidence)
        assert [(check.name, check.outcome.value) for check in verification.checks] == [
            ("signature", "ok"),
            ("identity", "ok"),
            ("request", "ok"),
            ("output", "ok"),
        ]


def test_submit_then_follow_gives_the_same_stream_again() -> None:
    with daemon(["One two three."]) as running, running.client() as client:
        task = client.submit("Hi")
        first = [event.id for event in task.stream() if isinstance(event, Token)]
        second = [event.id for event in task.stream() if isinstance(event, Token)]
        assert first == second
        assert len(running.engine.requests) == 1


# req: ORCH-4002
def test_the_same_id_is_the_same_task_and_another_body_a_conflict() -> None:
    task_id = "0f8fad5b-d9cb-469f-a165-70867728950e"
    with daemon(["one", "two"]) as running, running.client() as client:
        first = client.run("Hi", task_id=task_id)
        again = client.run("Hi", task_id=task_id)
        assert again["output"]["text"] == first["output"]["text"] == "one"
        assert len(running.engine.requests) == 1
        with pytest.raises(errors.Conflict):
            client.run("Something else", task_id=task_id)


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (Reply("a b c d", fault=Fault.DIE, after=2), errors.WorkerReset),
        (Reply("a b c d", fault=Fault.EOF, after=2), errors.WorkerReset),
        (Reply("a b c d", fault=Fault.ERROR_EVENT, after=2), errors.WorkerReset),
        (Reply("a b c d", fault=Fault.GARBAGE, after=2), errors.WorkerReset),
        (Reply("a b c d", fault=Fault.HANG, after=2), errors.DecodeTimeout),
        (Reply("a b c d", fault=Fault.HANG), errors.DecodeTimeout),
        (Reply(fault=Fault.CONTEXT_OVERFLOW), errors.InvalidParams),
    ],
    ids=["die", "eof", "error-event", "garbage", "hang", "hang-before-first", "context-overflow"],
)
def test_a_fault_becomes_exactly_one_typed_error(reply: Reply, expected: type[errors.ServerError]) -> None:
    with daemon([reply], IMPATIENT) as running, running.client(retry=ONCE) as client:
        stream = client.stream("Hi")
        seen = []
        with pytest.raises(expected):
            for event in stream:
                seen.append(event)
        assert isinstance(stream.terminal, Error)
        assert not any(isinstance(event, Error) for event in seen)
        assert client.task(stream.task_id)["error"]["code"] == expected.CODE


@pytest.mark.parametrize("fault", [Fault.DIE, Fault.BUSY])
def test_a_replica_that_fails_before_its_first_token_is_tried_again(fault: Fault) -> None:
    with daemon([Reply(fault=fault), "Hello there."]) as running, running.client(retry=ONCE) as client:
        assert client.run("Hi")["output"]["text"] == "Hello there."
        assert len(running.engine.requests) == 2


def test_cancel_reaches_the_engine_and_ends_the_stream() -> None:
    with daemon([Reply("a " * 1000, delay_s=0.01)]) as running, running.client() as client:
        stream = client.stream("Hi", max_tokens=400)
        for event in stream:
            if isinstance(event, Token):
                client.cancel(stream.task_id)
                break
        with pytest.raises(errors.Canceled):
            list(stream)
        assert client.task(stream.task_id)["state"] == "canceled"
        client.cancel(stream.task_id)


def test_two_daemons_run_in_one_process() -> None:
    with daemon(["one"]) as one, daemon(["two"]) as two:
        with one.client() as first, two.client() as second:
            assert first.run("Hi")["output"]["text"] == "one"
            assert second.run("Hi")["output"]["text"] == "two"


async def test_many_streams_at_once() -> None:
    import asyncio

    def echo(request: Any) -> str:
        return f"you said {request['prompt']}"

    with daemon(echo, Setup(replicas=2, slots=4)) as running:
        async with AsyncClient(running.url) as client:
            tasks = await asyncio.gather(*(client.run(f"number {i}") for i in range(50)))
    assert [task["output"]["text"] for task in tasks] == [f"you said number {i}" for i in range(50)]


# req: ORCH-2007
def test_a_full_queue_refuses_with_a_wait() -> None:
    classes = {"classes": [{"name": "interactive", "capacity": 1}]}
    with daemon([Reply(fault=Fault.HANG)], Setup(settings=classes)) as running:
        with running.client(retry=ONCE) as client:
            client.submit("running")
            client.submit("waiting")
            with pytest.raises(errors.AdmissionReject) as caught:
                client.submit("too many")
    assert caught.value.http_status == 429
    assert caught.value.retriable
    assert caught.value.policy_label == "reject"
    assert caught.value.retry_after_ms is not None
