"""What is different about PostgreSQL: a second lease, held on the server by a connection that stays open."""

from __future__ import annotations

import sqlalchemy as sa

from orchqueue.store.errors import StoreOwned, StoreUrlError
from orchqueue.store.lease import Holder, Lease

# Two numbers of our own in the server's space of advisory locks ("oq", owner / schema).
_OWNER_LOCK = 0x6F71_0001
_SCHEMA_LOCK = 0x6F71_0002


class PostgresqlBackend:
    """The store in one PostgreSQL database."""

    def __init__(self, url: str) -> None:
        parsed = sa.make_url(url)
        self.name = parsed.render_as_string(hide_password=True)
        try:
            self.engine = sa.create_engine(parsed, pool_pre_ping=True)
        except ModuleNotFoundError as error:
            raise StoreUrlError(
                f"the PostgreSQL driver `{error.name}` is not installed\nhint: `pip install psycopg[binary]`"
            ) from error

    def take_server_lease(self, holder: Holder) -> Lease | None:
        """Takes an advisory lock: daemons on other hosts do not see this one's file."""
        connection = self.engine.connect()
        taken = connection.execute(sa.select(sa.func.pg_try_advisory_lock(_OWNER_LOCK))).scalar()
        connection.commit()
        if not taken:
            connection.close()
            raise StoreOwned(self.name, "another process")
        return ConnectionLease(connection)

    def lock_schema(self, connection: sa.Connection) -> None:
        """Waits until no other process migrates; given back at the end of the transaction."""
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_SCHEMA_LOCK)))


class ConnectionLease:
    """Held as long as the connection; the server takes it back when the connection breaks."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def release(self) -> None:
        # Closed for good: given back to the pool, the connection would keep the lock.
        self._connection.invalidate()
        self._connection.close()
