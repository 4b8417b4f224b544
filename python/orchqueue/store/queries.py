"""Every SQL statement of the store. Each function takes a connection whose transaction the caller owns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, fields
from typing import Any

import sqlalchemy as sa

from orchqueue.store.errors import StoreFenced
from orchqueue.store.lease import Holder
from orchqueue.store.rows import ApiKey, TaskRow, TaskState
from orchqueue.store.schema import api_keys, fold_watermark, meta, owner, tasks

KEYS_REVISION = "keys_revision"
"""Name in `meta`: grows whenever the API keys change, so that a daemon notices what the command line did."""

_TASK_COLUMNS = [tasks.c[field.name] for field in fields(TaskRow)]
_HEAVY = {"attempts", "output", "receipt"}
_LIGHT_TASK_COLUMNS = [column for column in _TASK_COLUMNS if column.name not in _HEAVY]


# -- owner -----------------------------------------------------------------------------------------


def take_over(connection: sa.Connection, holder: Holder) -> int:
    """Writes the holder's name with a fence greater than any before, and returns it."""
    connection.execute(
        sa.update(owner).values(
            fence=owner.c.fence + 1, pid=holder.pid, host=holder.host, started_ms=holder.started_ms
        )
    )
    return int(connection.execute(sa.select(owner.c.fence)).scalar_one())


def check_fence(connection: sa.Connection, fence: int) -> None:
    """Raises when somebody took the store over; keeps it from happening until the transaction ends."""
    current = int(connection.execute(sa.select(owner.c.fence).with_for_update(read=True)).scalar_one())
    if current != fence:
        raise StoreFenced(fence, current)


# -- history ---------------------------------------------------------------------------------------


def folded_seq(connection: sa.Connection) -> int:
    """Number of the last journal record that is in `tasks`."""
    return int(connection.execute(sa.select(fold_watermark.c.folded_seq)).scalar_one())


def set_folded_seq(connection: sa.Connection, seq: int) -> None:
    """Moves the watermark; the caller wrote the tasks in the same transaction."""
    connection.execute(sa.update(fold_watermark).values(folded_seq=seq))


TaskKey = tuple[str, str]
"""Tenant and task id: ids are scoped to the tenant."""


def tasks_by_key(connection: sa.Connection, keys: Iterable[TaskKey]) -> dict[TaskKey, TaskRow]:
    """The rows of these keys, as far as they exist."""
    wanted = sa.tuple_(tasks.c.tenant, tasks.c.task_id).in_(list(keys))
    found = connection.execute(sa.select(*_TASK_COLUMNS).where(wanted))
    return {(row.tenant, row.task_id): _task(row) for row in found}


def write_tasks(connection: sa.Connection, new: Sequence[TaskRow], changed: Sequence[TaskRow]) -> None:
    """Inserts the new rows and replaces the changed ones."""
    if new:
        connection.execute(sa.insert(tasks), [asdict(row) for row in new])
    if changed:
        values = [{f"new_{name}": value for name, value in asdict(row).items()} for row in changed]
        statement = (
            sa.update(tasks)
            .where(
                tasks.c.tenant == sa.bindparam("new_tenant"), tasks.c.task_id == sa.bindparam("new_task_id")
            )
            .values(
                {
                    column: sa.bindparam(f"new_{column.name}", type_=column.type)
                    for column in _TASK_COLUMNS
                    if not column.primary_key
                }
            )
        )
        connection.execute(statement, values)


def page_of_tasks(
    connection: sa.Connection, tenant: str | None, state: TaskState | None, before_seq: int | None, limit: int
) -> list[TaskRow]:
    """Tasks admitted before `before_seq`, newest first, without what is large."""
    query = sa.select(*_LIGHT_TASK_COLUMNS).order_by(tasks.c.admitted_seq.desc()).limit(limit)
    if tenant is not None:
        query = query.where(tasks.c.tenant == tenant)
    if state is not None:
        query = query.where(tasks.c.state == state.value)
    if before_seq is not None:
        query = query.where(tasks.c.admitted_seq < before_seq)
    return [_task(row) for row in connection.execute(query)]


def drop_ended_before(connection: sa.Connection, before_ms: int) -> int:
    """Drops what ended before that moment; returns how many."""
    return connection.execute(sa.delete(tasks).where(tasks.c.ended_ms < before_ms)).rowcount


def drop_over_size(connection: sa.Connection, max_bytes: int) -> int:
    """Drops the tasks that ended first until the rest is within the size; returns how many."""
    kept = sa.select(
        tasks.c.tenant,
        tasks.c.task_id,
        sa.func.sum(tasks.c.size_bytes)
        .over(order_by=(tasks.c.ended_ms.desc(), tasks.c.tenant, tasks.c.task_id), rows=(None, 0))
        .label("running"),
    ).where(tasks.c.ended_ms.is_not(None))
    ranked = kept.subquery()
    excess = sa.select(ranked.c.tenant, ranked.c.task_id).where(ranked.c.running > max_bytes)
    return connection.execute(
        sa.delete(tasks).where(sa.tuple_(tasks.c.tenant, tasks.c.task_id).in_(excess))
    ).rowcount


def total_bytes(connection: sa.Connection) -> int:
    """Size of the ended tasks, as retention counts it."""
    total = sa.func.coalesce(sa.func.sum(tasks.c.size_bytes), 0)
    return int(connection.execute(sa.select(total).where(tasks.c.ended_ms.is_not(None))).scalar_one())


def _task(row: sa.Row[Any]) -> TaskRow:
    values = dict(row._mapping)
    return TaskRow(**{**values, "state": TaskState(values["state"])})


# -- API keys --------------------------------------------------------------------------------------


def all_api_keys(connection: sa.Connection) -> list[ApiKey]:
    """Every key, revoked ones too, oldest first."""
    query = sa.select(api_keys).order_by(api_keys.c.created_ms, api_keys.c.key_id)
    return [_api_key(row) for row in connection.execute(query)]


def insert_api_key(connection: sa.Connection, key: ApiKey) -> None:
    connection.execute(sa.insert(api_keys), [{**asdict(key), "roles": list(key.roles)}])
    _bump(connection, KEYS_REVISION)


def mark_api_key_revoked(connection: sa.Connection, key_id: str, now_ms: int) -> bool:
    """Compare-and-set: false when there is no such key or it was revoked before."""
    changed = connection.execute(
        sa.update(api_keys)
        .where(api_keys.c.key_id == key_id, api_keys.c.revoked_ms.is_(None))
        .values(revoked_ms=now_ms)
    ).rowcount
    if changed:
        _bump(connection, KEYS_REVISION)
    return changed == 1


def number(connection: sa.Connection, name: str) -> int:
    """One number of `meta`."""
    return int(connection.execute(sa.select(meta.c.number).where(meta.c.name == name)).scalar_one())


def _bump(connection: sa.Connection, name: str) -> None:
    connection.execute(sa.update(meta).where(meta.c.name == name).values(number=meta.c.number + 1))


def _api_key(row: sa.Row[Any]) -> ApiKey:
    values = dict(row._mapping)
    return ApiKey(**{**values, "roles": tuple(values["roles"])})
