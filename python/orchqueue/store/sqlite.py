"""What is different about SQLite: its pragmas and when its transactions begin."""

from __future__ import annotations

import os
import sqlite3

import sqlalchemy as sa

from orchqueue.store.errors import StoreUrlError
from orchqueue.store.files import StoreFiles
from orchqueue.store.lease import Holder, Lease


class SqliteBackend:
    """The store in one SQLite file."""

    def __init__(self, url: str, files: StoreFiles) -> None:
        if files.database is None:
            raise StoreUrlError("a SQLite store needs a file")
        self.name = str(files.database)
        files.database.parent.mkdir(parents=True, exist_ok=True)
        # Outputs are in it; the files that SQLite adds beside it take over its mode.
        os.close(os.open(files.database, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        self.engine = sa.create_engine(sa.make_url(url).set(database=str(files.database)))
        sa.event.listen(self.engine, "connect", _configure)
        sa.event.listen(self.engine, "begin", _begin)

    def take_server_lease(self, holder: Holder) -> Lease | None:
        """None: the locked file is enough, since every process that can open the store sees it."""
        return None

    def lock_schema(self, connection: sa.Connection) -> None:
        """Nothing to do: a writing transaction is the only one already."""


def _configure(connection: sqlite3.Connection, _record: object) -> None:
    # The driver's own idea of when a transaction begins leaves DDL outside; `_begin` decides instead.
    connection.isolation_level = None
    for pragma in ("busy_timeout = 5000", "journal_mode = WAL", "synchronous = FULL"):
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: sa.Connection) -> None:
    # A transaction that will write takes the write lock first: it can then not fail half-way with "locked".
    writes = connection.get_execution_options().get("orchqueue_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
