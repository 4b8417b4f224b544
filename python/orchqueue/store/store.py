"""The store: one value that owns the database, its schema and, for a daemon, the lease on it.

A daemon opens it with `owner=True` and is the only one that writes the history. The command line opens it
without the lease and may read everything and change API keys; the daemon notices by `keys_revision`.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Protocol, Self

import sqlalchemy as sa

from orchqueue.store import history, queries
from orchqueue.store.errors import BadCursor, LastKey, StoreError, StoreTooNew, UnknownKey
from orchqueue.store.files import StoreFiles, files_beside
from orchqueue.store.lease import FileLease, Holder, Lease
from orchqueue.store.migrations import HEAD
from orchqueue.store.migrations import run as migrations
from orchqueue.store.postgresql import PostgresqlBackend
from orchqueue.store.rows import ApiKey, JournalRecord, Retention, TaskPage, TaskRow, TaskState
from orchqueue.store.sqlite import SqliteBackend

_log = logging.getLogger(__name__)

_MAX_SEQ = 2**63 - 1


class Backend(Protocol):
    """What a database has to bring; the statements are the same for all."""

    name: str
    engine: sa.Engine

    def take_server_lease(self, holder: Holder) -> Lease | None: ...
    def lock_schema(self, connection: sa.Connection) -> None: ...


class Store:
    """Use `Store.open`. Every method may be called from any thread and is one transaction."""

    def __init__(self, backend: Backend, files: StoreFiles) -> None:
        self.files = files
        self._backend = backend
        self._leases: list[Lease] = []
        self._fence: int | None = None

    @classmethod
    def open(cls, url: str, *, owner: bool = True, lease: FileLease | None = None) -> Store:
        """Makes or migrates the tables; as owner holds the lease until `close`, or raises `StoreOwned`.

        A daemon takes `FileLease.take(files_beside(url))` before it opens its journal and hands it over here.
        """
        files = files_beside(url)
        backend: Backend = SqliteBackend(url, files) if files.database else PostgresqlBackend(url)
        store = cls(backend, files)
        try:
            if owner:
                store._own(lease or FileLease.take(files))
            elif not store._is_current():
                store._migrate_as_guest(files)
        except BaseException:
            store.close()
            raise
        return store

    def _own(self, lease: FileLease) -> None:
        self._leases.append(lease)
        if server_lease := self._backend.take_server_lease(lease.holder):
            self._leases.append(server_lease)
        self._migrate()
        with self._write() as connection:
            self._fence = queries.take_over(connection, lease.holder)

    def _migrate_as_guest(self, files: StoreFiles) -> None:
        # Only while no daemon has the store: one of another version must not find its tables changed.
        lease = FileLease.take(files)
        try:
            self._migrate()
        finally:
            lease.release()

    def _is_current(self) -> bool:
        with self._backend.engine.connect() as connection:
            return migrations.current_revision(connection) == HEAD

    def _migrate(self) -> None:
        with self._write() as connection:
            self._backend.lock_schema(connection)
            revision = migrations.current_revision(connection)
            if revision == HEAD:
                return
            if revision is not None and not migrations.is_known(revision):
                raise StoreTooNew(self._backend.name, revision)
            migrations.upgrade(connection)

    @property
    def fence(self) -> int | None:
        """This owner's number; None without the lease."""
        return self._fence

    # -- history -----------------------------------------------------------------------------------

    def folded_seq(self) -> int:
        """Number of the last journal record that is folded; 0 at first."""
        with self._read() as connection:
            return queries.folded_seq(connection)

    def fold(self, records: Sequence[JournalRecord]) -> int:
        """Takes the records into the history and returns the new watermark.

        Records that were folded before change nothing, so a batch may be given again after a crash.
        """
        with self._write_as_owner() as connection:
            watermark = queries.folded_seq(connection)
            fresh = sorted(record for record in records if record.seq > watermark)
            if not fresh:
                return watermark
            known = queries.tasks_by_key(connection, {(r.tenant, r.task_id) for r in fresh})
            rows = _folded(known, fresh)
            new = [row for key, row in rows.items() if key not in known]
            changed = [row for key, row in rows.items() if key in known and row is not known[key]]
            queries.write_tasks(connection, new, changed)
            queries.set_folded_seq(connection, fresh[-1].seq)
            return fresh[-1].seq

    def tasks(
        self,
        tenant: str | None,
        *,
        limit: int = 50,
        cursor: str | None = None,
        state: TaskState | None = None,
    ) -> TaskPage:
        """The tenant's tasks (of all tenants with None), newest first, without outputs and receipts."""
        before = _seq_of(cursor)
        with self._read() as connection:
            rows = queries.page_of_tasks(connection, tenant, state, before, limit + 1)
        page = rows[:limit]
        return TaskPage(page, str(page[-1].admitted_seq) if len(rows) > limit else None)

    def task(self, tenant: str, task_id: str) -> TaskRow | None:
        """One task with all that is known of it."""
        with self._read() as connection:
            return queries.tasks_by_key(connection, [(tenant, task_id)]).get((tenant, task_id))

    def apply_retention(self, retention: Retention, now_ms: int) -> int:
        """Drops ended tasks that are too old or too much; returns how many. What has not ended stays."""
        max_bytes = int(retention.max_mb * 1024 * 1024)
        with self._write_as_owner() as connection:
            dropped = queries.drop_ended_before(connection, now_ms - int(retention.hours * 3_600_000))
            if queries.total_bytes(connection) > max_bytes:
                dropped += queries.drop_over_size(connection, max_bytes)
        return dropped

    # -- API keys ----------------------------------------------------------------------------------

    def api_keys(self) -> list[ApiKey]:
        """Every key, revoked ones too, oldest first."""
        with self._read() as connection:
            return queries.all_api_keys(connection)

    def add_api_key(self, key: ApiKey) -> None:
        with self._write() as connection:
            queries.insert_api_key(connection, key)

    def revoke_api_key(self, key_id: str, now_ms: int, *, reopen: bool = False) -> None:
        """Raises `LastKey` for the last active key unless `reopen`, since a daemon without keys is open."""
        with self._write() as connection:
            active = {key.key_id for key in queries.all_api_keys(connection) if key.revoked_ms is None}
            if active == {key_id} and not reopen:
                raise LastKey(key_id)
            if not queries.mark_api_key_revoked(connection, key_id, now_ms):
                raise UnknownKey(key_id)

    def keys_revision(self) -> int:
        """Grows with every change of the API keys, whoever made it."""
        with self._read() as connection:
            return queries.number(connection, queries.KEYS_REVISION)

    # -- life --------------------------------------------------------------------------------------

    def close(self) -> None:
        """Gives the lease back and closes the connections; may be called twice."""
        self._fence = None
        self._backend.engine.dispose()
        while self._leases:
            self._leases.pop().release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextlib.contextmanager
    def _read(self) -> Iterator[sa.Connection]:
        with self._backend.engine.begin() as connection:
            yield connection

    @contextlib.contextmanager
    def _write(self) -> Iterator[sa.Connection]:
        with self._backend.engine.connect().execution_options(orchqueue_writes=True) as connection:
            with connection.begin():
                yield connection

    @contextlib.contextmanager
    def _write_as_owner(self) -> Iterator[sa.Connection]:
        if self._fence is None:
            raise StoreError("only the daemon that owns the store may write its history")
        with self._write() as connection:
            queries.check_fence(connection, self._fence)
            yield connection


def _folded(
    known: dict[queries.TaskKey, TaskRow], records: Sequence[JournalRecord]
) -> dict[queries.TaskKey, TaskRow]:
    """The touched rows after all records.

    A record that cannot be read is skipped: it would stop the fold for good, and the journal would grow.
    """
    rows: dict[queries.TaskKey, TaskRow] = {}
    for record in records:
        key = (record.tenant, record.task_id)
        try:
            row = history.apply(rows.get(key) or known.get(key), record)
        except history.UnreadableRecord as error:
            where = {"seq": record.seq, "task_id": record.task_id, "cause": str(error)}
            _log.error("journal record skipped", extra=where)
            continue
        if row is not None:
            rows[key] = row
    return rows


def _seq_of(cursor: str | None) -> int | None:
    if cursor is None:
        return None
    if not (cursor.isascii() and cursor.isdigit()) or int(cursor) > _MAX_SEQ:
        raise BadCursor
    return int(cursor)
