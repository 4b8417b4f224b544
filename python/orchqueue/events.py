"""The events of a task's stream, and the decoder that reads them from bytes.

A stream is `started`, any number of `token` and `metrics`, and exactly one terminal: `end` or `error`.
Fields that this version does not know stay readable in `data`; an event that it does not know becomes an
`UnknownEvent`. The decoder follows the event-stream format of the HTML standard and takes bytes however
they are cut.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, TypeAlias

from orchqueue.errors import Envelope, ProtocolError, ServerError, from_envelope

Channel: TypeAlias = Literal["text", "reasoning", "tool_call"]

_CHANNELS: tuple[Channel, ...] = ("text", "reasoning", "tool_call")
#: A line longer than this is not one of ours: refuse it rather than fill the memory.
MAX_LINE_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class SseFrame:
    """One dispatched event of a stream, before anything is made of its data."""

    event: str
    data: str
    id: str | None


class SseDecoder:
    """Turns bytes into frames, incrementally. Keeps the last id that was seen, as a browser does."""

    def __init__(self) -> None:
        self._tail = bytearray()
        self._after_cr = False
        self._at_start = True
        self._event = ""
        self._data: list[str] = []
        self._id: str | None = None
        self.last_event_id: str | None = None

    def feed(self, chunk: bytes) -> Iterator[SseFrame]:
        """Frames that are complete now. An incomplete one is kept; at the end of a stream it is lost."""
        for line in self._lines(chunk):
            frame = self._line(line)
            if frame is not None:
                yield frame

    def _lines(self, chunk: bytes) -> Iterator[bytes]:
        if self._after_cr and chunk:
            # The CR that ended the last chunk has ended its line; its LF belongs to it.
            self._after_cr = False
            if chunk[:1] == b"\n":
                chunk = chunk[1:]
        self._tail += chunk
        if len(self._tail) > MAX_LINE_BYTES and b"\n" not in chunk and b"\r" not in chunk:
            raise ProtocolError(f"a line of the stream is longer than {MAX_LINE_BYTES} bytes")
        if self._tail.endswith(b"\r"):
            self._after_cr = True
        if b"\r" in self._tail:
            self._tail = self._tail.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *lines, rest = bytes(self._tail).split(b"\n")
        self._tail = bytearray(rest)
        yield from lines

    def _line(self, line: bytes) -> SseFrame | None:
        if self._at_start:
            self._at_start = False
            line = line.removeprefix(b"\xef\xbb\xbf")
        if not line:
            return self._dispatch()
        if line.startswith(b":"):
            return None
        name, _, raw = line.partition(b":")
        value = _utf8(raw[1:] if raw.startswith(b" ") else raw)
        if name == b"data":
            self._data.append(value)
        elif name == b"event":
            self._event = value
        elif name == b"id" and "\0" not in value:
            self._id = value
        return None

    def _dispatch(self) -> SseFrame | None:
        event, data, frame_id = self._event, self._data, self._id
        self._event, self._data, self._id = "", [], None
        if frame_id is not None:
            self.last_event_id = frame_id
        if not data:
            return None
        return SseFrame(event or "message", "\n".join(data), frame_id)


def _utf8(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise ProtocolError("the stream is not UTF-8") from error


@dataclass(frozen=True, slots=True)
class Started:
    """The task has been admitted; where it stands and when it should begin."""

    NAME: ClassVar[str] = "started"
    queue_position: int | None = None
    predicted_start_ms: int | None = None
    #: The level that is kept: `strict` or `best_effort`.
    determinism: str | None = None
    replica_set: str | None = None
    #: Output bytes that the reader has already; set on a resumed stream only.
    resumed_from: int | None = None
    id: str | None = None
    data: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def from_sse(cls, data: Mapping[str, Any], event_id: str | None) -> Started:
        return cls(
            queue_position=_int(data, "queue_position"),
            predicted_start_ms=_int(data, "predicted_start_ms"),
            determinism=_str(data, "determinism"),
            replica_set=_str(data, "replica_set"),
            resumed_from=_int(data, "resumed_from"),
            id=event_id,
            data=data,
        )


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of output, cut at a character's border. `index` numbers the events of this stream."""

    NAME: ClassVar[str] = "token"
    text: str
    index: int
    channel: Channel = "text"
    id: str | None = None
    data: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def from_sse(cls, data: Mapping[str, Any], event_id: str | None) -> Token:
        text, index, channel = data.get("t"), data.get("i"), data.get("c", 0)
        if not isinstance(text, str) or not isinstance(index, int):
            raise ProtocolError("a `token` event needs `t` and `i`")
        if not isinstance(channel, int) or not 0 <= channel < len(_CHANNELS):
            raise ProtocolError(f"a `token` event has an unknown channel: {channel!r}")
        return cls(text, index, _CHANNELS[channel], event_id, data)


@dataclass(frozen=True, slots=True)
class Metrics:
    """How the task is doing, about once a second."""

    NAME: ClassVar[str] = "metrics"
    queue_depth: int | None = None
    kv_warmth: bool | None = None
    on_time_probability: float | None = None
    tokens_per_s: float | None = None
    id: str | None = None
    data: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def from_sse(cls, data: Mapping[str, Any], event_id: str | None) -> Metrics:
        return cls(
            queue_depth=_int(data, "queue_depth"),
            kv_warmth=warm if isinstance(warm := data.get("kv_warmth"), bool) else None,
            on_time_probability=_float(data, "on_time_probability"),
            tokens_per_s=_float(data, "tokens_per_s"),
            id=event_id,
            data=data,
        )


@dataclass(frozen=True, slots=True)
class End:
    """The task is finished. Nothing follows."""

    NAME: ClassVar[str] = "end"
    tokens_out: int | None = None
    decode_ms: int | None = None
    finish_reason: str | None = None
    usage: Mapping[str, Any] = field(default_factory=dict)
    #: The result of an embedding or rerank task; text tasks stream theirs.
    output: Mapping[str, Any] | None = None
    receipt: Mapping[str, Any] | None = field(default=None, repr=False)
    id: str | None = None
    data: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def from_sse(cls, data: Mapping[str, Any], event_id: str | None) -> End:
        return cls(
            tokens_out=_int(data, "tokens_out"),
            decode_ms=_int(data, "decode_ms"),
            finish_reason=_str(data, "finish_reason"),
            usage=_object(data, "usage") or {},
            output=_object(data, "output"),
            receipt=_object(data, "receipt"),
            id=event_id,
            data=data,
        )


@dataclass(frozen=True, slots=True)
class Error:
    """The task has failed, or was canceled. Nothing follows."""

    NAME: ClassVar[str] = "error"
    envelope: Envelope
    id: str | None = None
    data: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def from_sse(cls, data: Mapping[str, Any], event_id: str | None) -> Error:
        return cls(Envelope.from_wire(data), event_id, data)

    @property
    def code(self) -> str:
        return self.envelope.code

    @property
    def message(self) -> str:
        return self.envelope.message

    @property
    def retriable(self) -> bool:
        return self.envelope.retriable

    def exception(self) -> ServerError:
        """The same as something to raise."""
        return from_envelope(self.data)


@dataclass(frozen=True, slots=True)
class UnknownEvent:
    """An event of a newer daemon. It means nothing here and is safe to pass over."""

    name: str
    id: str | None = None
    data: Any = None


Event: TypeAlias = Started | Token | Metrics | End | Error | UnknownEvent

_KINDS: Mapping[str, type[Started | Token | Metrics | End | Error]] = {
    kind.NAME: kind for kind in (Started, Token, Metrics, End, Error)
}


def parse_event(frame: SseFrame) -> Event:
    """The typed event of a frame."""
    kind = _KINDS.get(frame.event)
    try:
        data = json.loads(frame.data)
    except ValueError as error:
        if kind is None:
            return UnknownEvent(frame.event, frame.id, frame.data)
        raise ProtocolError(f"the data of a `{frame.event}` event is not JSON") from error
    if kind is None:
        return UnknownEvent(frame.event, frame.id, data)
    if not isinstance(data, dict):
        raise ProtocolError(f"the data of a `{frame.event}` event is not an object")
    return kind.from_sse(data, frame.id)


def _int(data: Mapping[str, Any], key: str) -> int | None:
    value = data.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _float(data: Mapping[str, Any], key: str) -> float | None:
    value = data.get(key)
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _str(data: Mapping[str, Any], key: str) -> str | None:
    value = data.get(key)
    return value if isinstance(value, str) else None


def _object(data: Mapping[str, Any], key: str) -> Mapping[str, Any] | None:
    value = data.get(key)
    return value if isinstance(value, dict) else None
