"""The async client of the daemon. `client_sync.py` is the same for code without an event loop.

    async with AsyncClient() as client:
        async with client.stream("Say hello.", seed=7) as stream:
            async for event in stream:
                ...

The fields of a task are keyword arguments with the names of the contract (`max_tokens`, `seed`,
`deadline_ms`, ...) and pass through as they are: the daemon checks them. Failures are the exceptions of
`errors.py`. Retriable ones are tried again as `Retry` says; the client makes the task's id, so that the
daemon knows a task that it gets twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TypeVar

import httpx

from orchqueue.errors import (
    DaemonUnreachable,
    OrchqueueError,
    ProtocolError,
    StreamInterrupted,
    from_envelope,
)
from orchqueue.events import End, Error, Event, SseDecoder, SseFrame, Token, parse_event
from orchqueue.exchange import (
    STREAM_TIMEOUT,
    WAIT_TIMEOUT,
    connection_errors,
    failure,
    is_event_stream,
    json_object,
    new_http_client,
    segment,
)
from orchqueue.retry import Retry

__all__ = ["AsyncClient", "AsyncTask", "AsyncTaskStream", "Retry"]

_T = TypeVar("_T")
_EVENT_STREAM = {"Accept": "text/event-stream"}
_JSON = {"Accept": "application/json"}
#: An answer ends right after its terminal event; one that does not is cut off.
_DRAIN_S = 0.5


def task_body(prompt: str | None, fields: Mapping[str, Any]) -> dict[str, Any]:
    """The body of `POST /v1/tasks`: what was given, and an id so that sending it again is harmless."""
    body = {name: value for name, value in fields.items() if value is not None}
    if prompt is not None:
        body["prompt"] = prompt
    body.setdefault("task_id", str(uuid.uuid4()))
    body["task_id"] = str(body["task_id"])
    return body


class AsyncClient:
    """Talks to one daemon. Open it with `async with`, or call `aclose()` when done.

    `url` defaults to `ORCHQUEUE_URL`, then to `http://127.0.0.1:8700`; `key` to `ORCHQUEUE_API_KEY`.
    """

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        retry: Retry | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._http = new_http_client(url, key, transport)
        self._retry = retry or Retry()

    @property
    def url(self) -> str:
        return str(self._http.base_url).rstrip("/")

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Closes the connections. Tasks that were submitted go on."""
        await self._http.aclose()

    # Tasks

    async def submit(self, prompt: str | None = None, /, **task: Any) -> AsyncTask:
        """Hands a task in and returns as soon as the daemon has written it down."""
        body = task_body(prompt, task)
        answer = await self._retried(lambda: self._object("POST", "/v1/tasks", json=body, headers=_JSON))
        return AsyncTask(self, str(answer.get("task_id", body["task_id"])), answer)

    def stream(self, prompt: str | None = None, /, **task: Any) -> AsyncTaskStream:
        """Hands a task in and reads its events over the same connection."""
        body = task_body(prompt, task)
        return AsyncTaskStream(self, _Source("POST", "/v1/tasks", body["task_id"], body))

    async def run(self, prompt: str | None = None, /, **task: Any) -> dict[str, Any]:
        """Hands a task in and returns it when it is finished; raises what made it fail."""
        body = {**task_body(prompt, task), "wait": True}

        async def once() -> dict[str, Any]:
            answer = await self._object("POST", "/v1/tasks", json=body, headers=_JSON, timeout=WAIT_TIMEOUT)
            if isinstance(answer.get("error"), dict):
                raise from_envelope(answer["error"])
            return answer

        return await self._retried(once)

    async def task(self, task_id: str) -> dict[str, Any]:
        """The task as the daemon knows it now: state, position, attempts, output."""
        return await self._get(f"/v1/tasks/{segment(task_id)}")

    async def tasks(self) -> dict[str, Any]:
        """The tasks of this tenant that are still kept, newest first."""
        return await self._get("/v1/tasks")

    def follow(self, task_id: str, *, last_event_id: str | None = None) -> AsyncTaskStream:
        """The stream of a task that was handed in before: from its start, or after `last_event_id`."""
        path = f"/v1/tasks/{segment(task_id)}/stream"
        return AsyncTaskStream(self, _Source("GET", path, task_id, None, last_event_id))

    async def cancel(self, task_id: str) -> None:
        """Ends the task: no token of it follows. A task that has ended already stays as it is."""
        await self._retried(lambda: self._empty("POST", f"/v1/tasks/{segment(task_id)}/cancel"))

    async def receipt(self, task_id: str) -> dict[str, Any]:
        """The signed receipt of a finished task."""
        return await self._get(f"/v1/tasks/{segment(task_id)}/receipt")

    async def receipt_keys(self) -> dict[str, Any]:
        """The public keys that receipts of this daemon are signed with, old ones too."""
        return await self._get("/v1/receipt-keys")

    # Sessions

    async def session(self, session_id: str) -> dict[str, Any]:
        """What the daemon keeps of a session: its turns and how long it lives on."""
        return await self._get(f"/v1/sessions/{segment(session_id)}")

    async def forget_session(self, session_id: str) -> None:
        """Ends a session before its time."""
        await self._retried(lambda: self._empty("DELETE", f"/v1/sessions/{segment(session_id)}"))

    # What the daemon runs on

    async def capabilities(self) -> dict[str, Any]:
        """What this daemon can do: engines, workloads, limits."""
        return await self._get("/v1/capabilities")

    async def replicasets(self) -> dict[str, Any]:
        """The replica sets: replicas that give the same bytes for the same request."""
        return await self._get("/v1/replicasets")

    async def replicas(self) -> dict[str, Any]:
        """The replicas, each with its state and its slots."""
        return await self._get("/v1/replicas")

    async def pools(self) -> dict[str, Any]:
        """The pools, each with its health."""
        return await self._get("/v1/pools")

    async def pool_health(self, pool_id: str) -> dict[str, Any]:
        """Whether one pool is live, ready or draining, and its last error."""
        return await self._get(f"/v1/pools/{segment(pool_id)}/health")

    async def metrics(self) -> str:
        """The daemon's counters, as `/metrics` prints them."""
        with connection_errors(self._http.base_url):
            response = await self._http.get("/metrics", headers={"Accept": "text/plain"})
        if not response.is_success:
            raise failure(response)
        return response.text

    async def ready(self) -> bool:
        """True once the daemon has read its journal and listens."""
        with connection_errors(self._http.base_url):
            return (await self._http.get("/readyz")).is_success

    # One exchange

    async def _get(self, path: str) -> dict[str, Any]:
        return await self._retried(lambda: self._object("GET", path, headers=_JSON))

    async def _object(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        with connection_errors(self._http.base_url):
            response = await self._http.request(method, path, **options)
        return json_object(response)

    async def _empty(self, method: str, path: str) -> None:
        with connection_errors(self._http.base_url):
            response = await self._http.request(method, path)
        if not response.is_success:
            raise failure(response)

    async def _retried(self, once: Callable[[], Awaitable[_T]]) -> _T:
        pause = _Pause(self._retry)
        while True:
            try:
                return await once()
            except OrchqueueError as error:
                await pause.before_next(error)


class _Pause:
    """The waits between the tries of one call."""

    def __init__(self, retry: Retry) -> None:
        self._retry = retry
        self._tried = 0
        self._waited_s = 0.0

    async def before_next(self, error: OrchqueueError) -> None:
        """Waits as long as `error` asks for, or raises it when it is final."""
        self._tried += 1
        wait = self._retry.wait_s(error, self._tried, self._waited_s)
        if wait is None:
            raise error
        self._waited_s += wait
        await asyncio.sleep(wait)


class AsyncTask:
    """A task that the daemon has accepted, and where it stood then."""

    def __init__(self, client: AsyncClient, task_id: str, answer: Mapping[str, Any]) -> None:
        self._client = client
        self.id = task_id
        self.queue_position: int | None = answer.get("queue_position")
        self.predicted_start_ms: int | None = answer.get("predicted_start_ms")
        self.backoff_ms: int | None = answer.get("backoff_ms")

    def __repr__(self) -> str:
        return f"AsyncTask({self.id!r})"

    async def refresh(self) -> dict[str, Any]:
        """The task as the daemon knows it now."""
        return await self._client.task(self.id)

    def stream(self) -> AsyncTaskStream:
        """Its events, from the first one."""
        return self._client.follow(self.id)

    async def cancel(self) -> None:
        await self._client.cancel(self.id)

    async def receipt(self) -> dict[str, Any]:
        return await self._client.receipt(self.id)


@dataclass(frozen=True, slots=True)
class _Source:
    """Where a stream is read from."""

    method: str
    path: str
    task_id: str
    body: Mapping[str, Any] | None = None
    last_event_id: str | None = None

    def headers(self) -> dict[str, str]:
        if self.last_event_id is None:
            return dict(_EVENT_STREAM)
        return {**_EVENT_STREAM, "Last-Event-ID": self.last_event_id}


class AsyncTaskStream:
    """The events of one task, in order, as they come.

    Iterating ends after `end`; an `error` event is raised as its exception, and stays readable as
    `terminal`. A task that was refused or dropped before its first token is handed in again, as the
    client's `Retry` says. Leaving the `async with` closes the connection, and the daemon then treats the
    task as its `on_disconnect` says; `cancel()` ends it for sure.
    """

    def __init__(self, client: AsyncClient, source: _Source) -> None:
        self._client = client
        self._source = source
        self._pause = _Pause(client._retry)
        self._connection: _Connection | None = None
        self._closed = False
        self._text: list[str] = []
        self._delivered = False
        self.task_id = source.task_id
        #: Id of the last event that arrived whole; `follow(task_id, last_event_id=...)` goes on after it.
        self.last_event_id = source.last_event_id
        #: The one `end` or `error`, once it has come.
        self.terminal: End | Error | None = None
        self.correlation_id: str | None = None

    @property
    def text(self) -> str:
        """The text so far, without reasoning and tool calls."""
        return "".join(self._text)

    async def __aenter__(self) -> AsyncTaskStream:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __aiter__(self) -> AsyncTaskStream:
        return self

    async def __anext__(self) -> Event:
        while not self._closed and self.terminal is None:
            try:
                event = await self._next_event()
            except OrchqueueError as error:
                await self._hang_up()
                # What was read cannot be taken back: after a token a failure is the caller's to handle.
                if self._delivered:
                    raise
                await self._pause.before_next(error)
                self.terminal = None
                continue
            if event is not None:
                return event
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Stops reading."""
        self._closed = True
        await self._hang_up()

    async def cancel(self) -> None:
        """Cancels the task and stops reading."""
        await self._client.cancel(self.task_id)
        await self.aclose()

    async def result(self) -> End:
        """Reads to the end and returns it; `text` then holds the whole text."""
        async for _ in self:
            pass
        if isinstance(self.terminal, End):
            return self.terminal
        raise StreamInterrupted("the stream was closed before its end", last_event_id=self.last_event_id)

    async def _next_event(self) -> Event | None:
        """The next event; None where there is nothing to read."""
        if self._connection is None:
            response = await self._open()
            self.correlation_id = response.headers.get("x-correlation-id")
            self._connection = _Connection(response, self._client._http.base_url)
            if response.status_code == httpx.codes.NO_CONTENT:
                await self.aclose()
                return None
        frame = await self._connection.next_frame(self.last_event_id)
        if frame is None:
            raise StreamInterrupted(
                f"the stream of task `{self.task_id}` stopped before its end",
                last_event_id=self.last_event_id,
                hint=f"see how it went with `orchqueue task {self.task_id}`",
            )
        event = parse_event(frame)
        await self._note(event)
        return event

    async def _note(self, event: Event) -> None:
        if event.id is not None:
            self.last_event_id = event.id
        if isinstance(event, Token):
            self._delivered = True
            if event.channel == "text":
                self._text.append(event.text)
        elif isinstance(event, (End, Error)):
            self.terminal = event
            if self._connection is not None:
                await self._connection.drain()
            await self._hang_up()
            if isinstance(event, Error):
                raise event.exception()

    async def _open(self) -> httpx.Response:
        http, source = self._client._http, self._source
        request = http.build_request(
            source.method, source.path, json=source.body, headers=source.headers(), timeout=STREAM_TIMEOUT
        )
        with connection_errors(http.base_url):
            response = await http.send(request, stream=True)
            if not response.is_success:
                await response.aread()
        if not response.is_success:
            raise failure(response)
        if response.status_code != httpx.codes.NO_CONTENT and not is_event_stream(response.headers):
            await response.aclose()
            raise ProtocolError(f"`{response.url}` did not answer with an event stream")
        return response

    async def _hang_up(self) -> None:
        if self._connection is not None:
            connection, self._connection = self._connection, None
            await connection.aclose()


class _Connection:
    """One open answer and what has been decoded of it."""

    def __init__(self, response: httpx.Response, base_url: httpx.URL) -> None:
        self._response = response
        self._base_url = base_url
        self._chunks = response.aiter_bytes()
        self._decoder = SseDecoder()
        self._frames: deque[SseFrame] = deque()

    async def next_frame(self, last_event_id: str | None) -> SseFrame | None:
        """The next frame; None at the end of the answer."""
        while not self._frames:
            try:
                with connection_errors(self._base_url):
                    chunk = await anext(self._chunks, None)
            except DaemonUnreachable as error:
                raise StreamInterrupted(error.message, last_event_id=last_event_id) from error
            except httpx.StreamError:
                return None
            if chunk is None:
                return None
            self._frames.extend(self._decoder.feed(chunk))
        return self._frames.popleft()

    async def drain(self) -> None:
        """Reads what follows the terminal event, which is nothing: a finished answer frees its connection."""
        with contextlib.suppress(TimeoutError, httpx.HTTPError, httpx.StreamError):
            async with asyncio.timeout(_DRAIN_S):
                while await anext(self._chunks, None) is not None:
                    pass

    async def aclose(self) -> None:
        await self._response.aclose()
