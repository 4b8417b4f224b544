"""The client for code without an event loop: a thin face of `client.py`.

All logic is in `AsyncClient`. A `Client` owns one event loop on a thread of its own and hands every call
over to it. It may be used from several threads.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, TypeVar

import httpx

from orchqueue.client import AsyncClient, AsyncTask, AsyncTaskStream
from orchqueue.events import End, Error, Event
from orchqueue.retry import Retry

_T = TypeVar("_T")


class _LoopThread:
    """An event loop that runs on a thread of its own until it is closed."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="orchqueue-client", daemon=True)
        self._thread.start()

    def call(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Runs `work` on the loop and waits for it; an interrupt of the waiting thread cancels it."""
        if self._loop.is_closed():
            work.close()
            raise RuntimeError("this client is closed")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        if self._loop.is_closed():
            return
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            self._loop.run_until_complete(self._settle())

    async def _settle(self) -> None:
        """Lets what was interrupted run its clean-up, so that no connection is left half open."""
        for task in _others():
            task.cancel()
        # Clean-up may start more of it: generators that are dropped are closed by tasks of their own.
        while left := _others():
            await asyncio.gather(*left, return_exceptions=True)
        await self._loop.shutdown_asyncgens()


def _others() -> list[asyncio.Task[Any]]:
    return [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]


class Client:
    """Talks to one daemon. Open it with `with`, or call `close()` when done.

    Arguments, methods and failures are those of `AsyncClient`.
    """

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        retry: Retry | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._async = AsyncClient(url, key, retry=retry, transport=transport)
        self._thread = _LoopThread()

    @property
    def url(self) -> str:
        return self._async.url

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections. Tasks that were submitted go on."""
        try:
            self._thread.call(self._async.aclose())
        except RuntimeError:
            return
        self._thread.close()

    def submit(self, prompt: str | None = None, /, **task: Any) -> Task:
        """Hands a task in and returns as soon as the daemon has written it down."""
        return Task(self, self._call(self._async.submit(prompt, **task)))

    def stream(self, prompt: str | None = None, /, **task: Any) -> TaskStream:
        """Hands a task in and reads its events over the same connection."""
        return TaskStream(self, self._async.stream(prompt, **task))

    def run(self, prompt: str | None = None, /, **task: Any) -> dict[str, Any]:
        """Hands a task in and returns it when it is finished; raises what made it fail."""
        return self._call(self._async.run(prompt, **task))

    def task(self, task_id: str) -> dict[str, Any]:
        """The task as the daemon knows it now: state, position, attempts, output."""
        return self._call(self._async.task(task_id))

    def tasks(self) -> dict[str, Any]:
        """The tasks of this tenant that are still kept, newest first."""
        return self._call(self._async.tasks())

    def follow(self, task_id: str, *, last_event_id: str | None = None) -> TaskStream:
        """The stream of a task that was handed in before: from its start, or after `last_event_id`."""
        return TaskStream(self, self._async.follow(task_id, last_event_id=last_event_id))

    def cancel(self, task_id: str) -> None:
        """Ends the task: no token of it follows. A task that has ended already stays as it is."""
        self._call(self._async.cancel(task_id))

    def receipt(self, task_id: str) -> dict[str, Any]:
        """The signed receipt of a finished task."""
        return self._call(self._async.receipt(task_id))

    def receipt_keys(self) -> dict[str, Any]:
        """The public keys that receipts of this daemon are signed with, old ones too."""
        return self._call(self._async.receipt_keys())

    def session(self, session_id: str) -> dict[str, Any]:
        """What the daemon keeps of a session: its turns and how long it lives on."""
        return self._call(self._async.session(session_id))

    def forget_session(self, session_id: str) -> None:
        """Ends a session before its time."""
        self._call(self._async.forget_session(session_id))

    def capabilities(self) -> dict[str, Any]:
        """What this daemon can do: engines, workloads, limits."""
        return self._call(self._async.capabilities())

    def replicasets(self) -> dict[str, Any]:
        """The replica sets: replicas that give the same bytes for the same request."""
        return self._call(self._async.replicasets())

    def replicas(self) -> dict[str, Any]:
        """The replicas, each with its state and its slots."""
        return self._call(self._async.replicas())

    def pools(self) -> dict[str, Any]:
        """The pools, each with its health."""
        return self._call(self._async.pools())

    def pool_health(self, pool_id: str) -> dict[str, Any]:
        """Whether one pool is live, ready or draining, and its last error."""
        return self._call(self._async.pool_health(pool_id))

    def metrics(self) -> str:
        """The daemon's counters, as `/metrics` prints them."""
        return self._call(self._async.metrics())

    def ready(self) -> bool:
        """True once the daemon has read its journal and listens."""
        return self._call(self._async.ready())

    def _call(self, work: Coroutine[Any, Any, _T]) -> _T:
        return self._thread.call(work)


class Task:
    """A task that the daemon has accepted, and where it stood then."""

    def __init__(self, client: Client, accepted: AsyncTask) -> None:
        self._client = client
        self.id = accepted.id
        self.queue_position = accepted.queue_position
        self.predicted_start_ms = accepted.predicted_start_ms
        self.backoff_ms = accepted.backoff_ms

    def __repr__(self) -> str:
        return f"Task({self.id!r})"

    def refresh(self) -> dict[str, Any]:
        """The task as the daemon knows it now."""
        return self._client.task(self.id)

    def stream(self) -> TaskStream:
        """Its events, from the first one."""
        return self._client.follow(self.id)

    def cancel(self) -> None:
        self._client.cancel(self.id)

    def receipt(self) -> dict[str, Any]:
        return self._client.receipt(self.id)


class TaskStream:
    """The events of one task, in order, as they come; see `AsyncTaskStream`."""

    def __init__(self, client: Client, stream: AsyncTaskStream) -> None:
        self._client = client
        self._stream = stream

    @property
    def task_id(self) -> str:
        return self._stream.task_id

    @property
    def last_event_id(self) -> str | None:
        return self._stream.last_event_id

    @property
    def terminal(self) -> End | Error | None:
        return self._stream.terminal

    @property
    def correlation_id(self) -> str | None:
        return self._stream.correlation_id

    @property
    def text(self) -> str:
        """The text so far, without reasoning and tool calls."""
        return self._stream.text

    def __enter__(self) -> TaskStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> TaskStream:
        return self

    def __next__(self) -> Event:
        event = self._client._call(self._next())
        if event is None:
            raise StopIteration
        return event

    def close(self) -> None:
        """Stops reading."""
        self._client._call(self._stream.aclose())

    def cancel(self) -> None:
        """Cancels the task and stops reading."""
        self._client._call(self._stream.cancel())

    def result(self) -> End:
        """Reads to the end and returns it; `text` then holds the whole text."""
        return self._client._call(self._stream.result())

    async def _next(self) -> Event | None:
        return await anext(self._stream, None)
