"""What a failure means on the command line: its message, its hint and its exit code."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

from orchqueue.errors import (
    DaemonUnreachable,
    InvalidParams,
    OrchqueueError,
    RefusedError,
    ServerError,
    Unauthenticated,
)

FAILED = 1
USAGE = 2
UNREACHABLE = 3
REFUSED = 4


@dataclass(frozen=True, slots=True)
class Failure:
    message: str
    hint: str | None = None
    exit_code: int = FAILED
    #: What `--json` prints beside message and hint.
    fields: dict[str, Any] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        hint = {} if self.hint is None else {"hint": self.hint}
        return {"message": self.message, **hint, **self.fields}


class CommandFailed(Exception):
    """Raised by a command that has found out by itself that it cannot do what was asked."""

    def __init__(self, message: str, hint: str | None = None, *, exit_code: int = FAILED) -> None:
        super().__init__(message)
        self.failure = Failure(message, hint, exit_code)


def explain(error: Exception) -> Failure:
    """The failure behind an exception; one that nobody foresaw is a fault of ours and says so."""
    if isinstance(error, CommandFailed):
        return error.failure
    if isinstance(error, ServerError):
        return _of_server(error)
    if isinstance(error, OrchqueueError):
        code = UNREACHABLE if isinstance(error, DaemonUnreachable) else FAILED
        return Failure(str(error), error.hint, code)
    # Errors of this package's own parts end with their hint on a line of its own.
    message, _, hint = str(error).partition("\nhint: ")
    if type(error).__module__.startswith("orchqueue."):
        return Failure(message, hint or None)
    if isinstance(error, OSError):
        what = f"`{error.filename}`: {error.strerror}" if error.filename else str(error)
        return Failure(what)
    if isinstance(error, ValueError):
        return Failure(message, hint or None, USAGE)
    if os.environ.get("ORCHQUEUE_TRACEBACK"):
        raise error
    return Failure(
        f"this is a fault of orchqueue: {type(error).__name__}: {error}",
        "run it again with `ORCHQUEUE_TRACEBACK=1` and report what it prints",
    )


def _of_server(error: ServerError) -> Failure:
    code = FAILED
    if isinstance(error, RefusedError):
        code = REFUSED
    elif isinstance(error, InvalidParams):
        code = USAGE
    hint = error.hint
    if hint is None and isinstance(error, Unauthenticated):
        hint = "give a key with `--key` or `ORCHQUEUE_API_KEY`; `orchqueue key create` makes one"
    if hint is None and error.retriable:
        after = error.retry_after_ms
        hint = "try again" if after is None else f"try again in {after / 1000:.1f} s"
    fields = {
        "code": error.code,
        "retriable": error.retriable,
        "retry_after_ms": error.retry_after_ms,
        "policy_label": error.policy_label,
        "reason": error.reason,
        "correlation_id": error.correlation_id,
    }
    return Failure(
        f"{error.code}: {error.message}", hint, code, {k: v for k, v in fields.items() if v is not None}
    )
