"""What an adapter is: all knowledge of one engine, as data that Rust executes on the way of a token.

Python only writes the document (`Adapter.document`) and asks the engine what it is (`Adapter.probe`); it sees
no token. A new engine is one module that makes one `Adapter`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

Json = Any
DeclaredValue = bool | int | str


@dataclass(frozen=True, slots=True)
class Param:
    """A place in a body template that a request parameter fills; an optional one is dropped when absent."""

    name: str
    optional: bool = False

    def document(self) -> dict[str, str]:
        return {"$?" if self.optional else "$": self.name}


@dataclass(frozen=True, slots=True)
class End:
    """The mark of the last event that carries tokens. `None`: the mark is anything but null."""

    pointer: str
    equals: Json = None

    def document(self) -> dict[str, Json]:
        if self.equals is None:
            return {"pointer": self.pointer, "present": True}
        return {"pointer": self.pointer, "equals": self.equals}


@dataclass(frozen=True, slots=True, kw_only=True)
class Grammar:
    """How the engine's stream is read. Everything that looks like a path is an RFC 6901 pointer."""

    #: `sse` or `ndjson`.
    framing: str
    text: tuple[str, ...]
    end: End
    #: `event`: the stream is over with the end event; `done`: usage may follow until `done` or EOF.
    end_settles: str
    finish_reason: tuple[str, ...]
    finish_reasons: Mapping[str, str]
    tokens_in: tuple[str, ...]
    tokens_out: tuple[str, ...]
    tokens_cached: tuple[str, ...] = ()
    reasoning: tuple[str, ...] = ()
    tool_call: tuple[str, ...] = ()
    done: str | None = None
    ids: str | None = None
    #: The engine's own running counter of output tokens.
    count: tuple[str, ...] = ()
    skip_if: tuple[str, ...] = ()
    error: str = "/error"
    error_message: tuple[str, ...] = ("/error/message", "/error")
    error_kind: tuple[str, ...] = ("/error/type",)
    error_code: tuple[str, ...] = ("/error/code",)
    #: The engine's kinds of error → the classes of the daemon.
    classes: Mapping[str, str] = field(default_factory=dict)
    max_event_bytes: int = 1_048_576

    def document(self) -> dict[str, Json]:
        return {
            "framing": self.framing,
            "done": self.done,
            "max_event_bytes": self.max_event_bytes,
            "text": {
                "text": list(self.text),
                "reasoning": list(self.reasoning),
                "tool_call": list(self.tool_call),
            },
            "ids": self.ids,
            "count": list(self.count),
            "skip_if": list(self.skip_if),
            "end": self.end.document(),
            "end_settles": self.end_settles,
            "finish_reason": {"pointers": list(self.finish_reason), "map": dict(self.finish_reasons)},
            "usage": {
                "tokens_in": list(self.tokens_in),
                "tokens_out": list(self.tokens_out),
                "tokens_cached": list(self.tokens_cached),
            },
            "error": {
                "pointer": self.error,
                "message": list(self.error_message),
                "kind": list(self.error_kind),
                "code": list(self.error_code),
            },
            "classes": dict(self.classes),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One workload: where it is posted, what is sent, how the answer is read."""

    path: str
    body: Mapping[str, Json]
    grammar: Grammar
    method: str = "POST"
    headers: Mapping[str, str] = field(default_factory=dict)

    def document(self) -> dict[str, Json]:
        return {
            "method": self.method,
            "path": self.path,
            "headers": dict(self.headers),
            "body": _template(self.body),
            "grammar": self.grammar.document(),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class IdleRule:
    """How to see that a slot is free again after a stop: the path answers `ok_status`."""

    path: str
    ok_status: int
    first_after_ms: int
    #: Not more often: a poll may keep an engine from noticing that its client has left.
    every_ms: int

    def document(self) -> dict[str, Json]:
        return {
            "path": self.path,
            "ok_status": self.ok_status,
            "first_after_ms": self.first_after_ms,
            "every_ms": self.every_ms,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthRule:
    """The one path that may be polled often, and the status with which an engine says that it still loads."""

    path: str
    ok_status: int
    loading_status: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeReport:
    """What an engine says about itself. `None`: it does not say."""

    engine_version: str | None
    model_names: tuple[str, ...]
    model_path: str | None
    quant: str | None
    #: Places that the engine has; determinism is decided from this and not from what is used of them.
    slots: int
    #: Context of one place.
    ctx: int | None
    #: A reason why equal requests may differ whatever the flags say, such as a template that prints the date.
    unpinned: str | None = None


class Getter(Protocol):
    """Fetches one path of the engine that is probed."""

    async def get(self, path: str) -> tuple[int, Json]:
        """Status and parsed body (`None` when it is not JSON)."""
        ...


class ProbeRefused(Exception):
    """The engine answered, but it is not what the adapter knows. The message says what was wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeterminismPolicy:
    """Which launch settings make the engine reproducible; measured, see the table of the adapter's module."""

    #: Settings that an attached replica may declare, with their type.
    declarable: Mapping[str, type]
    #: Settings that enter the identity of a replica set.
    flags: tuple[str, ...]
    #: From the settings of a replica: is it reproducible, and if not, why.
    decide: Callable[[Mapping[str, DeclaredValue]], tuple[bool, str]]
    #: Settings that enter the identity only while another one is on.
    flags_while: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def reproducible(self, declared: Mapping[str, DeclaredValue]) -> tuple[bool, str]:
        return self.decide(declared)

    def identity_flags(self, declared: Mapping[str, DeclaredValue]) -> dict[str, DeclaredValue]:
        """The settings that count, of those that are known."""
        names = list(self.flags)
        for switch, more in self.flags_while.items():
            names += more if declared.get(switch) else ()
        return {name: declared[name] for name in names if name in declared}


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """All that is known of one engine."""

    engine: str
    routes: Mapping[str, Route]
    idle: IdleRule | None
    health: HealthRule
    determinism: DeterminismPolicy
    sampler_profile_version: str
    probe: Callable[[Getter], Awaitable[ProbeReport]]
    #: `engines/embedded.py` can start it.
    embedded: bool = False

    @property
    def workloads(self) -> tuple[str, ...]:
        return tuple(self.routes)

    def document(self) -> dict[str, Json]:
        """The adapter document that Rust executes."""
        return {
            "engine": self.engine,
            "routes": {workload: route.document() for workload, route in self.routes.items()},
            "idle": self.idle.document() if self.idle is not None else None,
        }


def _template(value: Json) -> Json:
    """A body template as JSON: `Param` becomes its marker, the rest stays."""
    if isinstance(value, Param):
        return value.document()
    if isinstance(value, Mapping):
        return {key: _template(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_template(inner) for inner in value]
    return value
