"""`GET /v1/tasks`: the tenant's tasks as the store has them, newest first (ORCH-4036).

A running task shows up here within a second or so; `GET /v1/tasks/{id}` is answered by the front door and is
never late.
"""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from orchqueue.control.errors import ApiError
from orchqueue.control.principal import Principal, reader
from orchqueue.control.sources import Sources
from orchqueue.store.errors import BadCursor
from orchqueue.store.rows import TaskRow, TaskState

_MAX_LIMIT = 500
_DEFAULT_LIMIT = 50
_PARAMS = ("state", "limit", "after", "tenant")


class Query(NamedTuple):
    """The parameters of one listing, checked."""

    tenant: str
    state: TaskState | None
    limit: int
    after: str | None


def routes(sources: Sources) -> list[Route]:
    async def list_tasks(request: Request) -> Response:
        query = _query(request, reader(request))
        try:
            page = await asyncio.to_thread(
                sources.store.tasks, query.tenant, limit=query.limit, cursor=query.after, state=query.state
            )
        except BadCursor as error:
            raise ApiError("INVALID_PARAMS", "`after`: not a `next` that this list gave out") from error
        body: dict[str, Any] = {"tasks": [_summary(row) for row in page.tasks]}
        if page.next_cursor is not None:
            body["next"] = page.next_cursor
        return JSONResponse(body)

    return [Route("/v1/tasks", list_tasks)]


def _query(request: Request, principal: Principal) -> Query:
    given = _single_values(request)
    return Query(_tenant(given, principal), _state(given), _limit(given), given.get("after"))


def _single_values(request: Request) -> dict[str, str]:
    given: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if name not in _PARAMS:
            raise ApiError(
                "INVALID_PARAMS",
                f"`{name[:80]}`: not a parameter of this list",
                hint=f"the parameters are {', '.join(f'`{known}`' for known in _PARAMS)}",
            )
        if name in given:
            raise ApiError("INVALID_PARAMS", f"`{name}`: given twice")
        given[name] = value
    return given


def _tenant(given: dict[str, str], principal: Principal) -> str:
    tenant = given.get("tenant", principal.tenant)
    if tenant != principal.tenant and not principal.is_admin:
        raise ApiError("FORBIDDEN", "`tenant`: only an admin may read the tasks of another tenant")
    return tenant


def _state(given: dict[str, str]) -> TaskState | None:
    if "state" not in given:
        return None
    try:
        return TaskState(given["state"])
    except ValueError as error:
        known = ", ".join(f"`{state}`" for state in TaskState)
        raise ApiError(
            "INVALID_PARAMS", "`state`: not a state of a task", hint=f"the states are {known}"
        ) from error


def _limit(given: dict[str, str]) -> int:
    text = given.get("limit", str(_DEFAULT_LIMIT))
    # `int` alone would take other alphabets' digits, blanks and underscores.
    if text.isascii() and text.isdigit() and len(text) < 6 and 1 <= int(text) <= _MAX_LIMIT:
        return int(text)
    raise ApiError("INVALID_PARAMS", f"`limit`: must be a whole number from 1 to {_MAX_LIMIT}")


def _summary(row: TaskRow) -> dict[str, Any]:
    optional = {"pool_id": row.pool_id, "error": row.error, "ended_ms": row.ended_ms}
    return {
        "task_id": row.task_id,
        "state": row.state.value,
        "priority": row.priority,
        "created_ms": row.created_ms,
        **{name: value for name, value in optional.items() if value is not None},
    }
