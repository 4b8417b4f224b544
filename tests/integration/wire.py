"""The wire as it is: events of a stream with their ids and bytes, over sockets that a test holds itself.

The client package hides what these tests are about: what comes after a 204, how bytes are cut, what a
reader that has gone away leaves behind.
"""

from __future__ import annotations

import json
import select
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

import httpx
from orchqueue.testing import ScriptedDaemon

#: No wait of these tests is longer.
PATIENCE_S = 20.0
TERMINALS = ("end", "error")
STREAM = {"accept": "text/event-stream"}


@dataclass(frozen=True)
class Event:
    """One event; a comment is an event named `:`."""

    name: str
    id: str | None
    data: dict[str, Any]
    raw: bytes


def parsed(block: bytes) -> Event:
    fields = dict(line.split(": ", 1) for line in block.decode().strip("\n").split("\n") if ": " in line)
    return Event(fields.get("event", ":"), fields.get("id"), json.loads(fields.get("data", "{}")), block)


def events(body: bytes) -> list[Event]:
    """The events of a whole stream; what stands after the last one is an error."""
    blocks = body.split(b"\n\n")
    assert blocks.pop() == b"", "the stream broke off inside an event"
    return [parsed(block + b"\n\n") for block in blocks]


def text(stream: list[Event]) -> str:
    return "".join(event.data["t"] for event in stream if event.name == "token")


def tokens(stream: list[Event]) -> list[Event]:
    return [event for event in stream if event.name == "token"]


def the_end(stream: list[Event]) -> Event:
    """The terminal event, of which there is one, and it is the last."""
    found = [event for event in stream if event.name in TERMINALS]
    assert len(found) == 1, [event.name for event in stream]
    assert stream[-1] is found[0]
    return found[0]


def until(condition: Callable[[], object], within_s: float = PATIENCE_S) -> None:
    """Waits for something that has no event of its own; bounded."""
    limit = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < limit, f"not within {within_s} s"
        time.sleep(0.01)


def post(url: str, body: Mapping[str, Any], **headers: str) -> httpx.Response:
    return httpx.post(f"{url}/v1/tasks", json=body, headers=headers, timeout=PATIENCE_S, trust_env=False)


def submitted(url: str, prompt: str = "Hi", **fields: Any) -> str:
    """Submits a task and returns its id."""
    answer = post(url, {"prompt": prompt, **fields})
    assert answer.status_code == 202, answer.text
    task_id: str = answer.json()["task_id"]
    return task_id


def streamed(url: str, prompt: str = "Hi", **fields: Any) -> list[Event]:
    """Submits a task and reads its stream, in one trip."""
    answer = post(url, {"prompt": prompt, **fields}, **STREAM)
    assert answer.status_code == 200, answer.text
    return events(answer.content)


def followed(url: str, task_id: str, last: str | None = None) -> httpx.Response:
    headers = {} if last is None else {"last-event-id": last}
    path = f"{url}/v1/tasks/{task_id}/stream"
    return httpx.get(path, headers=headers, timeout=PATIENCE_S, trust_env=False)


def shown(url: str, task_id: str) -> dict[str, Any]:
    answer = httpx.get(f"{url}/v1/tasks/{task_id}", timeout=PATIENCE_S, trust_env=False)
    assert answer.status_code == 200, answer.text
    task: dict[str, Any] = answer.json()
    return task


def canceled(url: str, task_id: str) -> int:
    answer = httpx.post(f"{url}/v1/tasks/{task_id}/cancel", timeout=PATIENCE_S, trust_env=False)
    return answer.status_code


def waits_for_state(url: str, task_id: str, state: str) -> dict[str, Any]:
    until(lambda: shown(url, task_id)["state"] == state)
    return shown(url, task_id)


class Raw:
    """One HTTP/1.0 exchange over a socket of our own: its body is what comes until it closes."""

    def __init__(
        self,
        url: str,
        request: str,
        body: Mapping[str, Any] | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        receive_buffer: int | None = None,
    ) -> None:
        address = urlsplit(url)
        self.socket = socket.socket()
        self.socket.settimeout(PATIENCE_S)
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.connect((address.hostname or "", address.port or 80))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        content = b"" if body is None else json.dumps(body).encode()
        lines = [f"{request} HTTP/1.0", f"host: {address.netloc}", f"content-length: {len(content)}"]
        if content:
            lines.append("content-type: application/json")
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        self.socket.sendall("\r\n".join([*lines, "", ""]).encode() + content)
        self._rest = b""
        self.status: int | None = None
        self.head = ""

    @classmethod
    def following(cls, url: str, task_id: str, **options: Any) -> Raw:
        return cls(url, f"GET /v1/tasks/{task_id}/stream", **options)

    @classmethod
    def submitting(cls, url: str, body: Mapping[str, Any], path: str = "/v1/tasks", **options: Any) -> Raw:
        return cls(url, f"POST {path}", body, headers=STREAM, **options)

    def __enter__(self) -> Raw:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self.socket.close()

    def answered(self) -> Raw:
        """Reads the head of the answer."""
        if self.status is None:
            while b"\r\n\r\n" not in self._rest:
                more = self.socket.recv(65536)
                assert more, "the connection ended before the head of an answer"
                self._rest += more
            head, _, self._rest = self._rest.partition(b"\r\n\r\n")
            self.head = head.decode()
            self.status = int(self.head.split(" ", 2)[1])
        return self

    def event(self) -> Event | None:
        """The next event, or nothing at the end of the stream."""
        self.answered()
        while b"\n\n" not in self._rest:
            more = self.socket.recv(65536)
            if not more:
                assert self._rest == b"", "the stream broke off inside an event"
                return None
            self._rest += more
        block, _, self._rest = self._rest.partition(b"\n\n")
        return parsed(block + b"\n\n")

    def event_named(self, name: str) -> Event:
        while (event := self.event()) is not None:
            if event.name == name:
                return event
        raise AssertionError(f"the stream ended without `{name}`")

    def here(self) -> list[Event]:
        """The events whose bytes have arrived already; waits for nothing."""
        self.answered()
        while select.select([self.socket], [], [], 0)[0]:
            more = self.socket.recv(65536)
            if not more:
                break
            self._rest += more
        whole, _, self._rest = self._rest.rpartition(b"\n\n")
        return events(whole + b"\n\n") if whole else []

    def rest(self) -> list[Event]:
        """Every event up to the end of the stream."""
        found = []
        while (event := self.event()) is not None:
            found.append(event)
        return found

    def body(self) -> bytes:
        """Everything that is left."""
        self.answered()
        while more := self.socket.recv(65536):
            self._rest += more
        whole, self._rest = self._rest, b""
        return whole


def replica(running: ScriptedDaemon, number: int = 0) -> dict[str, Any]:
    """How the scheduler sees a replica."""
    found: dict[str, Any] = json.loads(running.core.snapshot())["replicas"][number]
    return found
