"""Performs migrations from code: there is no alembic.ini and no command line."""

from __future__ import annotations

import threading

import sqlalchemy as sa

from orchqueue.store.migrations import HEAD

# Alembic keeps the migration that runs in a global: two stores of one process take turns.
_ALEMBIC = threading.Lock()


def current_revision(connection: sa.Connection) -> str | None:
    """Revision of the tables; None for an empty database. Does not load Alembic."""
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    revision: str | None = connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()
    return revision


def is_known(revision: str | None) -> bool:
    """Whether this version has a step from that revision on."""
    from alembic.script import ScriptDirectory

    known = {script.revision for script in ScriptDirectory.from_config(_config(None)).walk_revisions()}
    return revision is None or revision in known


def upgrade(connection: sa.Connection) -> None:
    """Brings the tables to `HEAD` inside the connection's transaction."""
    from alembic import command

    with _ALEMBIC:
        command.upgrade(_config(connection), HEAD)


def _config(connection: sa.Connection | None):  # type: ignore[no-untyped-def]
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "orchqueue.store:migrations")
    config.attributes["connection"] = connection
    return config
