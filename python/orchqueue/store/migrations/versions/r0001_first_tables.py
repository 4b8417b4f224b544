"""The first tables: history of tasks, API keys, owner, fold watermark."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    _create_tasks()
    op.create_table(
        "api_keys",
        sa.Column("key_id", sa.String(12), nullable=False),
        sa.Column("hmac_hex", sa.String(64), nullable=False),
        sa.Column("tenant", sa.String(64), nullable=False),
        sa.Column("roles", sa.JSON, nullable=False),
        sa.Column("label", sa.Text, nullable=False),
        sa.Column("created_ms", sa.BigInteger, nullable=False),
        sa.Column("revoked_ms", sa.BigInteger),
        sa.PrimaryKeyConstraint("key_id", name="pk_api_keys"),
    )
    meta = op.create_table(
        "meta",
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("number", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_meta"),
    )
    owner = op.create_table(
        "owner",
        sa.Column("id", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("fence", sa.BigInteger, nullable=False),
        sa.Column("pid", sa.BigInteger, nullable=False),
        sa.Column("host", sa.Text, nullable=False),
        sa.Column("started_ms", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_owner"),
    )
    watermark = op.create_table(
        "fold_watermark",
        sa.Column("id", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("folded_seq", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_fold_watermark"),
    )
    op.bulk_insert(meta, [{"name": "keys_revision", "number": 0}])
    op.bulk_insert(owner, [{"id": 1, "fence": 0, "pid": 0, "host": "", "started_ms": 0}])
    op.bulk_insert(watermark, [{"id": 1, "folded_seq": 0}])


def _create_tasks() -> None:
    op.create_table(
        "tasks",
        sa.Column("tenant", sa.String(64), nullable=False),
        sa.Column("task_id", sa.String(36), nullable=False),
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
        sa.Column("attempts", sa.JSON),
        sa.Column("output", sa.JSON),
        sa.Column("error", sa.JSON),
        sa.Column("receipt", sa.JSON),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("tenant", "task_id", name="pk_tasks"),
    )
    op.create_index("ix_tasks_tenant_admitted_seq", "tasks", ["tenant", "admitted_seq"])
    op.create_index("ix_tasks_admitted_seq", "tasks", ["admitted_seq"])
    op.create_index("ix_tasks_ended_ms_size_bytes", "tasks", ["ended_ms", "size_bytes"])


def downgrade() -> None:
    for table in ("fold_watermark", "owner", "meta", "api_keys", "tasks"):
        op.drop_table(table)
