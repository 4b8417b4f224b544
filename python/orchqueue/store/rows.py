"""What goes into the store and comes out of it, as plain values. No SQL, so that everybody may import it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple


class JournalRecord(NamedTuple):
    """One line of the daemon's journal, in the order of `Daemon.journal_read`."""

    seq: int
    tenant: str
    task_id: str
    kind: str
    """`admitted`, `started` or `ended`."""
    at_ms: int
    data: str
    """A JSON object; what is in it depends on the kind."""


class TaskState(StrEnum):
    """Where a task stands. The last three are final until the same id is admitted again."""

    QUEUED = "queued"
    STARTED = "started"
    FINISHED = "finished"
    FAILED = "failed"
    CANCELED = "canceled"


FINAL_STATES = frozenset({TaskState.FINISHED, TaskState.FAILED, TaskState.CANCELED})


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRow:
    """One task of the history: its latest admission and what became of it."""

    tenant: str
    task_id: str
    admitted_seq: int
    """Journal number of the latest admission; newer tasks have greater ones."""
    state: TaskState
    priority: str
    created_ms: int
    started_ms: int | None = None
    ended_ms: int | None = None
    workload: str | None = None
    pool_id: str | None = None
    engine: str | None = None
    model_ref: str | None = None
    session_id: str | None = None
    determinism: str | None = None
    tokens_in: int | None = None
    tokens_out: int | None = None
    finish_reason: str | None = None
    error_code: str | None = None
    attempts: list[dict[str, Any]] | None = None
    output: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    receipt: dict[str, Any] | None = None
    size_bytes: int = 0
    """Bytes of journal data that this row stands for; what `retention.max_mb` counts."""


@dataclass(frozen=True, slots=True)
class TaskPage:
    """Some tasks, newest first, and where to go on; `next_cursor` is None on the last page."""

    tasks: list[TaskRow]
    next_cursor: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """A stored API key. The secret itself is not kept anywhere."""

    key_id: str
    hmac_hex: str
    tenant: str
    roles: tuple[str, ...]
    label: str
    created_ms: int
    revoked_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Retention:
    """How long and how much of the history is kept."""

    hours: float = 24.0
    max_mb: float = 1024.0
