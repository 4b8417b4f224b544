"""Alembic's entry point. The connection comes from run.py, inside a transaction that run.py owns."""

from __future__ import annotations

from alembic import context

from orchqueue.store import schema

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=schema.metadata,
    # SQLite can roll back DDL; a step that fails half-way must leave nothing behind.
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
