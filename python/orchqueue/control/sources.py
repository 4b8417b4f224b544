"""What the control app reads from, as narrow as it needs it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from orchqueue.config.runtime import Config
from orchqueue.pools.status import PoolStatus
from orchqueue.store.rows import TaskPage, TaskState


class DaemonSource(Protocol):
    """`orchqueue._core.Daemon`: JSON documents that it builds at the moment of the call."""

    def snapshot(self) -> str: ...
    def metrics(self) -> str: ...


class HistorySource(Protocol):
    """`orchqueue.store.Store`."""

    def tasks(
        self,
        tenant: str | None,
        *,
        limit: int = 50,
        cursor: str | None = None,
        state: TaskState | None = None,
    ) -> TaskPage: ...


class PoolsSource(Protocol):
    """`orchqueue.pools.supervisor.Supervisor`."""

    def status(self) -> Sequence[PoolStatus]: ...


@dataclass(frozen=True, slots=True)
class Sources:
    """Everything behind the control app."""

    daemon: DaemonSource
    store: HistorySource
    pools: PoolsSource
    config: Config
    version: str
