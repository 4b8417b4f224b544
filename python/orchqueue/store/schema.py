"""The tables, as SQLAlchemy Core. A change here needs a migration beside it; a test compares the two."""

from __future__ import annotations

import sqlalchemy as sa

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

tasks = sa.Table(
    "tasks",
    metadata,
    sa.Column("tenant", sa.String(64), primary_key=True),
    sa.Column("task_id", sa.String(36), primary_key=True),
    sa.Column("admitted_seq", sa.BigInteger, nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("created_ms", sa.BigInteger, nullable=False),
    sa.Column("started_ms", sa.BigInteger),
    sa.Column("ended_ms", sa.BigInteger),
    sa.Column("workload", sa.Text),
    sa.Column("priority", sa.Text, nullable=False),
    sa.Column("pool_id", sa.Text),
    sa.Column("engine", sa.Text),
    sa.Column("model_ref", sa.Text),
    sa.Column("session_id", sa.Text),
    sa.Column("determinism", sa.Text),
    sa.Column("tokens_in", sa.BigInteger),
    sa.Column("tokens_out", sa.BigInteger),
    sa.Column("finish_reason", sa.Text),
    sa.Column("error_code", sa.Text),
    sa.Column("attempts", sa.JSON(none_as_null=True)),
    sa.Column("output", sa.JSON(none_as_null=True)),
    sa.Column("error", sa.JSON(none_as_null=True)),
    sa.Column("receipt", sa.JSON(none_as_null=True)),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.Index("ix_tasks_tenant_admitted_seq", "tenant", "admitted_seq"),
    sa.Index("ix_tasks_admitted_seq", "admitted_seq"),
    # Covers the sums of retention, so that they do not read the outputs.
    sa.Index("ix_tasks_ended_ms_size_bytes", "ended_ms", "size_bytes"),
)

api_keys = sa.Table(
    "api_keys",
    metadata,
    sa.Column("key_id", sa.String(12), primary_key=True),
    sa.Column("hmac_hex", sa.String(64), nullable=False),
    sa.Column("tenant", sa.String(64), nullable=False),
    sa.Column("roles", sa.JSON, nullable=False),
    sa.Column("label", sa.Text, nullable=False),
    sa.Column("created_ms", sa.BigInteger, nullable=False),
    sa.Column("revoked_ms", sa.BigInteger),
)

meta = sa.Table(
    "meta",
    metadata,
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("number", sa.BigInteger, nullable=False),
)
"""Single numbers; each name is a constant of queries.py."""

owner = sa.Table(
    "owner",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("fence", sa.BigInteger, nullable=False),
    sa.Column("pid", sa.BigInteger, nullable=False),
    sa.Column("host", sa.Text, nullable=False),
    sa.Column("started_ms", sa.BigInteger, nullable=False),
)
"""One row: who took the store last. The fence grows with every owner, so that a stale one can be told."""

fold_watermark = sa.Table(
    "fold_watermark",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("folded_seq", sa.BigInteger, nullable=False),
)
"""One row: the last journal record that is in `tasks`. Written in the same transaction as the tasks."""
