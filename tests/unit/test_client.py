"""The clients against a callable in place of the network."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import orchqueue
import pytest
from orchqueue import AsyncClient, Client, End, Retry, Started, Token
from orchqueue.errors import (
    AdmissionReject,
    Canceled,
    DaemonUnreachable,
    InvalidParams,
    ProtocolError,
    StreamInterrupted,
    WorkerReset,
)

Handler = Callable[[httpx.Request], httpx.Response]
QUICK = Retry(base_s=0.001)
TASK = "0f8fad5b-d9cb-469f-a165-70867728950e"


def sse(*events: tuple[str, dict[str, Any]]) -> bytes:
    return b"".join(f"event: {name}\ndata: {json.dumps(data)}\n\n".encode() for name, data in events)


STARTED = ("started", {"queue_position": 0, "predicted_start_ms": 0, "determinism": "strict"})
END = ("end", {"tokens_out": 2, "decode_ms": 1, "finish_reason": "stop"})


def stream_answer(*events: tuple[str, dict[str, Any]]) -> httpx.Response:
    return httpx.Response(200, headers={"content-type": "text/event-stream"}, content=sse(*events))


def refusal(status: int, code: str, **fields: Any) -> httpx.Response:
    headers = fields.pop("headers", {})
    body = {"code": code, "message": "why", "retriable": False, "correlation_id": "c-1", **fields}
    return httpx.Response(status, headers=headers, json=body)


def client(handler: Handler, **options: Any) -> Client:
    options.setdefault("retry", QUICK)
    return Client("http://daemon", transport=httpx.MockTransport(handler), **options)


def test_submit_sends_the_fields_and_makes_an_id() -> None:
    seen: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        body = json.loads(request.content)
        return httpx.Response(202, json={"task_id": body["task_id"], "queue_position": 3, "backoff_ms": 0})

    with client(handler, key="oq_x_y") as c:
        task = c.submit("Hi", seed=7, max_tokens=None)
    body = json.loads(seen[0].content)
    assert body == {"prompt": "Hi", "seed": 7, "task_id": task.id}
    assert task.queue_position == 3
    assert seen[0].headers["authorization"] == "Bearer oq_x_y"


def test_retriable_refusal_is_tried_again_with_the_same_id() -> None:
    ids: list[str] = []

    def handler(request: httpx.Request) -> httpx.Response:
        ids.append(json.loads(request.content)["task_id"])
        if len(ids) < 3:
            return refusal(429, "ADMISSION_REJECT", retriable=True, headers={"X-Backoff-Ms": "1"})
        return httpx.Response(202, json={"task_id": ids[0]})

    with client(handler) as c:
        assert c.submit("Hi").id == ids[0]
    assert len(ids) == 3
    assert len(set(ids)) == 1


def test_attempts_are_bounded_and_the_last_refusal_is_raised() -> None:
    calls: list[int] = []

    def handler(_: httpx.Request) -> httpx.Response:
        calls.append(1)
        return refusal(429, "ADMISSION_REJECT", retriable=True, retry_after_ms=1)

    with client(handler) as c, pytest.raises(AdmissionReject) as caught:
        c.submit("Hi")
    assert len(calls) == QUICK.attempts
    assert (caught.value.http_status, caught.value.correlation_id) == (429, "c-1")


def test_what_is_wrong_is_not_sent_twice() -> None:
    calls: list[int] = []

    def handler(_: httpx.Request) -> httpx.Response:
        calls.append(1)
        return refusal(400, "INVALID_PARAMS", hint="did you mean `seed`?")

    with client(handler) as c, pytest.raises(InvalidParams) as caught:
        c.submit("Hi", sead=1)
    assert len(calls) == 1
    assert caught.value.hint == "did you mean `seed`?"


def test_no_daemon_is_unreachable_with_a_hint() -> None:
    def handler(_: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    with client(handler) as c, pytest.raises(DaemonUnreachable, match="http://daemon") as caught:
        c.capabilities()
    assert "orchqueue serve" in (caught.value.hint or "")


def test_stream_yields_typed_events_and_collects_the_text() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        assert request.headers["accept"] == "text/event-stream"
        return stream_answer(
            STARTED,
            ("token", {"t": "Hel", "i": 0}),
            ("token", {"t": "hm", "i": 1, "c": 1}),
            ("token", {"t": "lo", "i": 2}),
            END,
        )

    with client(handler) as c, c.stream("Hi") as stream:
        events = list(stream)
        assert [type(event) for event in events] == [Started, Token, Token, Token, End]
        assert stream.text == "Hello"
        assert stream.terminal is events[-1]
        assert list(stream) == []


def test_error_event_is_raised_and_stays_readable() -> None:
    def handler(_: httpx.Request) -> httpx.Response:
        return stream_answer(
            STARTED,
            ("token", {"t": "a", "i": 0}),
            ("error", {"code": "WORKER_RESET", "message": "gone", "retriable": True}),
        )

    with client(handler) as c:
        stream = c.stream("Hi")
        with pytest.raises(WorkerReset):
            list(stream)
        assert isinstance(stream.terminal, orchqueue.Error)
        assert stream.text == "a"
        assert list(stream) == []


def test_task_that_gave_way_before_its_first_token_is_handed_in_again() -> None:
    answers = [
        stream_answer(
            STARTED, ("error", {"code": "ADMISSION_REJECT", "message": "gave way", "retriable": True})
        ),
        stream_answer(STARTED, ("token", {"t": "a", "i": 0}), END),
    ]
    with client(lambda _: answers.pop(0)) as c:
        stream = c.stream("Hi")
        assert stream.result().tokens_out == 2
    assert stream.text == "a"
    assert answers == []


def test_end_of_the_answer_without_a_terminal_is_an_interrupted_stream() -> None:
    body = b'event: token\nid: 1-ab\ndata: {"t":"a","i":0}\n\nevent: end\ndata: {"tok'

    def handler(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers={"content-type": "text/event-stream"}, content=body)

    with client(handler) as c, pytest.raises(StreamInterrupted) as caught:
        c.stream("Hi").result()
    assert caught.value.last_event_id == "1-ab"


def test_connection_that_breaks_mid_stream_is_an_interrupted_stream() -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield sse(STARTED, ("token", {"t": "a", "i": 0}))
        raise httpx.ReadError("reset")

    def handler(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers={"content-type": "text/event-stream"}, content=broken())

    with client(handler) as c, pytest.raises(StreamInterrupted, match="broke off"):
        c.stream("Hi").result()


def test_follow_sends_the_last_id_and_204_ends_at_once() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        assert (request.method, request.url.path) == ("GET", f"/v1/tasks/{TASK}/stream")
        assert request.headers["last-event-id"] == "7-aa-end"
        return httpx.Response(204)

    with client(handler) as c:
        assert list(c.follow(TASK, last_event_id="7-aa-end")) == []


def test_run_waits_and_raises_what_made_the_task_fail() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        assert json.loads(request.content)["wait"] is True
        if json.loads(request.content)["prompt"] == "good":
            return httpx.Response(200, json={"state": "finished", "output": {"text": "ok"}})
        error = {"code": "CANCELED", "message": "canceled", "retriable": False}
        return httpx.Response(200, json={"state": "canceled", "error": error})

    with client(handler) as c:
        assert c.run("good")["output"]["text"] == "ok"
        with pytest.raises(Canceled):
            c.run("bad")


def test_reads_go_to_their_paths() -> None:
    paths: list[str] = []

    def handler(request: httpx.Request) -> httpx.Response:
        paths.append(f"{request.method} {request.url.raw_path.decode()}")
        return httpx.Response(204) if request.method in ("POST", "DELETE") else httpx.Response(200, json={})

    with client(handler) as c:
        c.task("a/b")
        c.tasks()
        c.cancel(TASK)
        c.receipt(TASK)
        c.receipt_keys()
        c.session(TASK)
        c.forget_session(TASK)
        c.capabilities()
        c.replicasets()
        c.replicas()
        c.pools()
        c.pool_health("tiny")
        assert c.ready()
    assert paths == [
        "GET /v1/tasks/a%2Fb",
        "GET /v1/tasks",
        f"POST /v1/tasks/{TASK}/cancel",
        f"GET /v1/tasks/{TASK}/receipt",
        "GET /v1/receipt-keys",
        f"GET /v1/sessions/{TASK}",
        f"DELETE /v1/sessions/{TASK}",
        "GET /v1/capabilities",
        "GET /v1/replicasets",
        "GET /v1/replicas",
        "GET /v1/pools",
        "GET /v1/pools/tiny/health",
        "GET /readyz",
    ]


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(502, text="<html>nginx</html>"),
        httpx.Response(200, text="hello"),
        httpx.Response(200, json=[1]),
        httpx.Response(404, json={"detail": "not ours"}),
    ],
)
def test_something_else_at_the_address_is_a_protocol_error(answer: httpx.Response) -> None:
    with client(lambda _: answer) as c, pytest.raises(ProtocolError):
        c.capabilities()


def test_stream_that_is_not_an_event_stream_is_a_protocol_error() -> None:
    with (
        client(lambda _: httpx.Response(200, json={})) as c,
        pytest.raises(ProtocolError, match="event stream"),
    ):
        list(c.stream("Hi"))


def test_address_and_key_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCHQUEUE_URL", "http://elsewhere:1/")
    monkeypatch.setenv("ORCHQUEUE_API_KEY", "oq_a_b")
    seen: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json={})

    with Client(transport=httpx.MockTransport(handler)) as c:
        assert c.url == "http://elsewhere:1"
        c.capabilities()
    assert seen[0].headers["authorization"] == "Bearer oq_a_b"


def test_address_without_a_scheme_is_refused() -> None:
    with pytest.raises(ValueError, match="http or https"):
        Client("localhost:8700")


def test_closed_client_says_so() -> None:
    c = client(lambda _: httpx.Response(200, json={}))
    c.close()
    c.close()
    with pytest.raises(RuntimeError, match="closed"):
        c.capabilities()


async def test_async_stream_can_be_left_early() -> None:
    closed = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        try:
            for i in range(1_000_000):
                yield sse(("token", {"t": "x", "i": i}))
                await asyncio.sleep(0)
        finally:
            closed.set()

    def handler(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers={"content-type": "text/event-stream"}, content=endless())

    async with AsyncClient("http://daemon", transport=httpx.MockTransport(handler)) as c:
        async with c.stream("Hi") as stream:
            async for event in stream:
                assert isinstance(event, Token)
                if event.index == 2:
                    break
        assert stream.text == "xxx"
        with pytest.raises(StreamInterrupted, match="closed before its end"):
            await stream.result()


async def test_async_submit_returns_a_handle() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        if request.method == "POST" and request.url.path == "/v1/tasks":
            return httpx.Response(202, json={"task_id": TASK, "queue_position": 1})
        if request.url.path.endswith("/stream"):
            return stream_answer(STARTED, ("token", {"t": "a", "i": 0}), END)
        return httpx.Response(200, json={"task_id": TASK, "state": "finished"})

    async with AsyncClient("http://daemon", transport=httpx.MockTransport(handler)) as c:
        task = await c.submit("Hi")
        assert (await task.refresh())["state"] == "finished"
        stream = task.stream()
        assert (await stream.result()).finish_reason == "stop"
        assert stream.text == "a"
