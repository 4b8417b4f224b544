"""`GET /v1/capabilities`: what this daemon can do, from its configuration (ORCH-4035)."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from orchqueue.config.runtime import Config
from orchqueue.control.live import read_pools
from orchqueue.control.principal import reader
from orchqueue.control.sources import Sources

_FEATURES = (
    "api_keys",
    "cancel",
    "chat_completions",
    "event_streams",
    "metrics",
    "receipts",
    "sessions",
    "stream_resume",
    "task_history",
)


def routes(sources: Sources) -> list[Route]:
    async def capabilities(request: Request) -> Response:
        reader(request)
        pools = await read_pools(sources)
        return JSONResponse(
            {
                "api_version": "v1",
                "version": sources.version,
                "engines": sorted({pool.engine for pool in sources.config.pools}),
                "ctx_max": max((pool.status.ctx or 0 for pool in pools), default=0),
                "workloads": sorted({workload for pool in pools for workload in pool.status.workloads}),
                "features": list(_FEATURES),
                "limits": _limits(sources.config),
            }
        )

    return [Route("/v1/capabilities", capabilities)]


def _limits(config: Config) -> dict[str, Any]:
    return {
        "max_body_bytes": config.server.max_body_bytes,
        "session_ttl_ms": config.session_ttl_ms,
        "session_max_turns": config.session_max_turns,
        "classes": [
            {"name": one.name, "capacity": one.capacity, "full_policy": one.full_policy}
            for one in config.classes
        ],
    }
