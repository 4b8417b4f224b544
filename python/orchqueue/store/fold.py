"""The loop that folds the daemon's journal into the store.

Nothing on a task's way waits for it. While the store cannot be written the journal keeps the records and the
loop tries again, later each time; only a lost lease ends it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from orchqueue.store.errors import StoreFenced
from orchqueue.store.rows import JournalRecord, Retention

_log = logging.getLogger(__name__)

BATCH = 500
"""Records per transaction: a few milliseconds of work."""


class Journal(Protocol):
    """The daemon's side: `orchqueue._core.Daemon` has it."""

    def journal_read(self, after_seq: int, limit: int) -> list[tuple[int, str, str, str, int, str]]: ...
    def journal_trim(self, folded_seq: int) -> int: ...


class History(Protocol):
    """The store's side: `Store` has it."""

    def folded_seq(self) -> int: ...
    def fold(self, records: list[JournalRecord]) -> int: ...
    def apply_retention(self, retention: Retention, now_ms: int) -> int: ...


@dataclass(frozen=True, slots=True)
class Pace:
    """How often the loop looks, in seconds."""

    busy_s: float = 1.0
    idle_s: float = 2.0
    retention_s: float = 60.0
    backoff_s: float = 0.5
    backoff_max_s: float = 30.0


class Folder:
    """Folds batch by batch. `run` is the loop; `fold_batch` is one step of it and blocks."""

    def __init__(
        self,
        journal: Journal,
        store: History,
        retention: Retention,
        now_ms: Callable[[], int],
        pace: Pace | None = None,
    ) -> None:
        self._journal = journal
        self._store = store
        self._retention = retention
        self._now_ms = now_ms
        self._pace = pace or Pace()
        self._retained_ms = 0
        self._failures = 0

    def fold_batch(self) -> int:
        """Folds the next records, lets the journal drop what it may, and returns how many were read."""
        records = [
            JournalRecord(*record) for record in self._journal.journal_read(self._store.folded_seq(), BATCH)
        ]
        if records:
            self._journal.journal_trim(self._store.fold(records))
        return len(records)

    def keep_to_retention(self) -> None:
        """Drops what is past retention on both sides, when it is time to look again."""
        now_ms = self._now_ms()
        if now_ms - self._retained_ms < self._pace.retention_s * 1000:
            return
        self._store.apply_retention(self._retention, now_ms)
        self._journal.journal_trim(self._store.folded_seq())
        self._retained_ms = now_ms

    async def run(self, stop: asyncio.Event) -> None:
        """Folds until `stop`, then what is left. Raises `StoreFenced` when another process has the store."""
        while not stop.is_set():
            pause = await self._step()
            if pause:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), pause)
        await self.flush()

    async def flush(self) -> None:
        """Folds what the journal still has; what cannot be folded now stays there for the next start."""
        self._failures = 0
        while not self._failures and await self._step() < self._pace.idle_s:
            pass

    async def _step(self) -> float:
        """One batch; returns for how many seconds to rest."""
        try:
            read = await asyncio.to_thread(self._work)
        except StoreFenced:
            raise
        except Exception as error:  # Whatever the database says: the tasks go on without their history.
            return self._rest_after(error)
        if self._failures:
            _log.info("the history is written again", extra={"failures": self._failures})
        self._failures = 0
        if read == BATCH:
            return 0.0
        return self._pace.busy_s if read else self._pace.idle_s

    def _work(self) -> int:
        read = self.fold_batch()
        self.keep_to_retention()
        return read

    def _rest_after(self, error: Exception) -> float:
        self._failures += 1
        rest = min(self._pace.backoff_s * 2.0 ** (self._failures - 1), self._pace.backoff_max_s)
        _log.error(
            "the history could not be written; the journal keeps it",
            extra={"cause": f"{type(error).__name__}: {error}", "failures": self._failures, "retry_s": rest},
        )
        return rest
