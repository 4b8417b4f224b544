"""An engine that says what a script tells it to, over llama.cpp's own protocol.

It speaks `/completion`, `/v1/chat/completions`, `/health`, `/props` and `/slots` as far as the adapter uses
them, and it can fail in the ways in which engines fail. It decodes nothing: the request is kept for the test
to look at.
"""

from __future__ import annotations

import json
import re
import select
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, ClassVar, Protocol

_WORDS = re.compile(r"\s*\S+|\s+$")
#: How soon a waiting reply notices that its engine is closed.
_STEP_S = 0.05


class Fault(Enum):
    """How a reply goes wrong. The first four look at `Reply.after`; the others send no token."""

    #: The connection is reset, as by a process that was killed. With `after` 0 no header is sent.
    DIE = "die"
    #: The answer ends cleanly, but without the engine's end marker.
    EOF = "eof"
    #: An `error` event, as for a context that ran full.
    ERROR_EVENT = "error_event"
    #: Silence, until the caller hangs up or the engine is closed.
    HANG = "hang"
    #: Bytes that are not JSON.
    GARBAGE = "garbage"
    #: 500, before any header of a stream.
    FAIL = "fail"
    #: 503, as from an engine that is still loading.
    BUSY = "busy"
    #: 400: the prompt does not fit in the context.
    CONTEXT_OVERFLOW = "context_overflow"


@dataclass(frozen=True, slots=True)
class Reply:
    """What the engine answers to one request."""

    #: Cut into words, each of which is one token; a sequence is taken as it is.
    text: str | Sequence[str] = "Hello from the scripted engine."
    #: Wait before every token.
    delay_s: float = 0.0
    fault: Fault | None = None
    #: Tokens that are sent before the fault.
    after: int = 0
    #: `stop`, or `length` for a reply that was cut.
    finish_reason: str = "stop"
    #: How long its slot stays busy after the caller has hung up: an engine does not notice at once.
    lingers_s: float = 0.0

    def tokens(self) -> list[str]:
        return _WORDS.findall(self.text) if isinstance(self.text, str) else list(self.text)


Script = Sequence[str | Reply] | Callable[[Mapping[str, Any]], str | Reply]


@dataclass(slots=True)
class _State:
    """What the handlers of one engine share."""

    script: Script
    slots: int
    ctx: int
    api_key: str | None
    lock: threading.Lock = field(default_factory=threading.Lock)
    closing: threading.Event = field(default_factory=threading.Event)
    requests: list[dict[str, Any]] = field(default_factory=list)
    hang_ups: list[float] = field(default_factory=list)
    busy: int = 0
    healthy: bool = True

    def next_reply(self, request: dict[str, Any]) -> Reply:
        with self.lock:
            number = len(self.requests)
            self.requests.append(request)
        if callable(self.script):
            said = self.script(request)
        else:
            # The last line is said again and again, so that a script may be shorter than a test.
            said = self.script[min(number, len(self.script) - 1)]
        return said if isinstance(said, Reply) else Reply(said)


class ScriptedEngine:
    """A running scripted engine. Made by `engine()`."""

    def __init__(
        self,
        script: Script = ("Hello from the scripted engine.",),
        *,
        slots: int = 1,
        api_key: str | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        if not callable(script) and not script:
            raise ValueError("a script needs at least one reply")
        self._state = _State(script, slots, ctx=512, api_key=api_key)
        self._scheme = "http" if tls is None else "https"
        state = self._state

        class Handler(_Handler):
            shared = state

        self._server = _Server(("127.0.0.1", 0), Handler)
        if tls is not None:
            # The handshake is left to the connection's own thread: a caller that never begins blocks nobody.
            self._server.socket = tls.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self._thread = threading.Thread(
            target=self._server.serve_forever,
            kwargs={"poll_interval": 0.05},
            name="scripted-engine",
            daemon=True,
        )
        self._thread.start()

    @property
    def url(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self._server.server_address[1]}"

    @property
    def slots(self) -> int:
        return self._state.slots

    @property
    def requests(self) -> list[dict[str, Any]]:
        """The bodies of the requests so far, oldest first."""
        with self._state.lock:
            return list(self._state.requests)

    @property
    def aborted(self) -> int:
        """How many replies the caller hung up on."""
        with self._state.lock:
            return len(self._state.hang_ups)

    @property
    def hang_ups(self) -> list[float]:
        """When the callers hung up, by `time.monotonic()`, in order."""
        with self._state.lock:
            return list(self._state.hang_ups)

    def set_healthy(self, healthy: bool) -> None:
        """Decides what `/health` says from now on."""
        self._state.healthy = healthy

    def close(self) -> None:
        """Ends every reply that is under way and stops listening."""
        self._state.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> ScriptedEngine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@contextmanager
def engine(
    script: Script = ("Hello from the scripted engine.",),
    *,
    slots: int = 1,
    api_key: str | None = None,
    tls: ssl.SSLContext | None = None,
) -> Iterator[ScriptedEngine]:
    """A scripted engine on a free port of this machine; with `tls` it is an `https://` one."""
    with ScriptedEngine(script, slots=slots, api_key=api_key, tls=tls) as running:
        yield running


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # A burst of tests connects faster than threads are made.
    request_queue_size = 256

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A caller that hangs up is part of the game: nothing is printed."""


class _Handler(BaseHTTPRequestHandler):
    """One connection. `shared` is set per engine."""

    shared: ClassVar[_State]
    protocol_version = "HTTP/1.1"
    server_version = "llama.cpp"
    sys_version = ""
    disable_nagle_algorithm = True
    _lingers_s = 0.0

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing: a test's output is its own."""

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        if path == "/health":
            # As llama.cpp does: its health is everybody's to know.
            self._health()
        elif not self._allowed():
            self._unauthenticated()
        elif path == "/slots":
            self._slots("fail_on_no_slot=1" in query)
        elif path == "/props":
            self._json(200, self._props())
        elif path == "/v1/models":
            self._json(200, {"object": "list", "data": [{"id": "scripted", "object": "model"}]})
        else:
            self._error(404, "not_found_error", "File Not Found")

    def do_POST(self) -> None:
        length = int(self.headers.get("content-length", 0))
        try:
            request = json.loads(self.rfile.read(length))
        except ValueError:
            self._error(400, "invalid_request_error", "not JSON")
            return
        if not self._allowed():
            self._unauthenticated()
            return
        if self.path == "/completion":
            speech: _Speech = _CompletionSpeech()
        elif self.path == "/v1/chat/completions":
            speech = _ChatSpeech()
        else:
            self._error(404, "not_found_error", "File Not Found")
            return
        with self.shared.lock:
            self.shared.busy += 1
        try:
            reply = self.shared.next_reply(request)
            self._lingers_s = reply.lingers_s
            self._reply(reply, speech)
        except OSError:
            # The caller hung up while we wrote.
            self._note_abort()
        finally:
            with self.shared.lock:
                self.shared.busy -= 1

    def _allowed(self) -> bool:
        key = self.shared.api_key
        return key is None or self.headers.get("authorization") == f"Bearer {key}"

    def _unauthenticated(self) -> None:
        self._error(401, "authentication_error", "Invalid API Key")

    def _health(self) -> None:
        if self.shared.healthy:
            self._json(200, {"status": "ok"})
        else:
            self._error(503, "unavailable_error", "Loading model")

    def _slots(self, fail_when_busy: bool) -> None:
        with self.shared.lock:
            busy = self.shared.busy
        if fail_when_busy and busy >= self.shared.slots:
            self._error(503, "unavailable_error", "no slot available")
            return
        slots = [
            {"id": i, "n_ctx": self.shared.ctx, "is_processing": i < busy} for i in range(self.shared.slots)
        ]
        self._json(200, slots)

    def _props(self) -> dict[str, Any]:
        return {
            "build_info": "scripted",
            "total_slots": self.shared.slots,
            "model_alias": "scripted",
            "model_path": "scripted",
            "chat_template": "",
            "default_generation_settings": {"n_ctx": self.shared.ctx},
        }

    def _reply(self, reply: Reply, speech: _Speech) -> None:
        if reply.fault is Fault.FAIL:
            self._error(500, "server_error", "the engine has a bad day")
        elif reply.fault is Fault.BUSY:
            self._error(503, "unavailable_error", "Loading model")
        elif reply.fault is Fault.CONTEXT_OVERFLOW:
            self._error(400, "exceed_context_size_error", "the request exceeds the available context size")
        elif reply.fault is Fault.DIE and reply.after == 0:
            self._reset()
        else:
            self._stream(reply, speech)

    def _stream(self, reply: Reply, speech: _Speech) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        said = reply.tokens()
        for number, token in enumerate(said):
            if reply.fault is not None and number == reply.after:
                break
            if not self._wait(reply.delay_s):
                return
            self._chunk(speech.token(token, number + 1))
        if reply.fault is None:
            self._chunk(speech.end(len(said), reply.finish_reason))
        elif not self._fail(reply.fault):
            return
        self._chunk(b"")

    def _fail(self, fault: Fault) -> bool:
        """Performs a fault mid-stream; True when the answer is still to be ended cleanly."""
        if fault is Fault.DIE:
            self._reset()
            return False
        if fault is Fault.HANG:
            return self._wait(None)
        if fault is Fault.GARBAGE:
            self._chunk(b"data: {not json\n\n")
        elif fault is Fault.ERROR_EVENT:
            error = {"code": 500, "message": "Context size has been exceeded.", "type": "server_error"}
            self._chunk(_event({"error": error}))
        return True

    def _wait(self, seconds: float | None) -> bool:
        """Waits; False as soon as the caller hangs up or the engine is closed."""
        until = None if seconds is None else time.monotonic() + seconds
        while not self.shared.closing.is_set():
            left = _STEP_S if until is None else min(_STEP_S, until - time.monotonic())
            if left <= 0:
                return True
            if self._hung_up_within(left):
                self._note_abort()
                self.close_connection = True
                return False
        self.close_connection = True
        return False

    def _hung_up_within(self, seconds: float) -> bool:
        """A caller says nothing while it waits for its reply: what is heard is that it leaves."""
        poll = select.poll()
        poll.register(self.connection, select.POLLIN)
        return bool(poll.poll(seconds * 1000))

    def _note_abort(self) -> None:
        with self.shared.lock:
            self.shared.hang_ups.append(time.monotonic())
        self.shared.closing.wait(self._lingers_s)

    def _reset(self) -> None:
        # Lingering for no time makes the kernel send RST instead of FIN, as for a process that was killed.
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()

    def _json(self, status: int, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _error(self, status: int, kind: str, message: str) -> None:
        self._json(status, {"error": {"code": status, "message": message, "type": kind}})


class _Speech(Protocol):
    """How one route of the engine writes its events."""

    def token(self, text: str, number: int) -> bytes:
        """One token event."""
        ...

    def end(self, tokens: int, finish_reason: str) -> bytes:
        """The end of the stream."""
        ...


class _CompletionSpeech(_Speech):
    def token(self, text: str, number: int) -> bytes:
        return _event(
            {
                "index": 0,
                "content": text,
                "tokens": [number],
                "stop": False,
                "id_slot": -1,
                "tokens_predicted": number,
                "tokens_evaluated": 3,
            }
        )

    def end(self, tokens: int, finish_reason: str) -> bytes:
        return _event(
            {
                "index": 0,
                "content": "",
                "tokens": [],
                "stop": True,
                "id_slot": 0,
                "tokens_predicted": tokens,
                "tokens_evaluated": 3,
                "truncated": False,
                "stop_type": "limit" if finish_reason == "length" else "eos",
                "timings": {"cache_n": 0, "prompt_n": 3, "predicted_n": tokens},
            }
        )


class _ChatSpeech(_Speech):
    def token(self, text: str, number: int) -> bytes:
        return _event(_chat_chunk({"content": text}, None))

    def end(self, tokens: int, finish_reason: str) -> bytes:
        usage = {"prompt_tokens": 3, "completion_tokens": tokens, "total_tokens": tokens + 3}
        last = {**_chat_chunk({}, None), "choices": [], "usage": usage, "timings": {"predicted_n": tokens}}
        return _event(_chat_chunk({}, finish_reason)) + _event(last) + b"data: [DONE]\n\n"


def _chat_chunk(delta: dict[str, Any], finish_reason: str | None) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    return {"id": "chatcmpl-0", "object": "chat.completion.chunk", "model": "scripted", "choices": [choice]}


def _event(value: object) -> bytes:
    return b"data: " + json.dumps(value, ensure_ascii=False).encode() + b"\n\n"
