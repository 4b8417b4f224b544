"""`GET /v1/replicasets`: replicas grouped by identity (ORCH-4032).

Within one set the same request gives the same bytes, if the set is reproducible.
"""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from orchqueue.control.live import LivePool, LiveReplica, read_pools
from orchqueue.control.principal import reader
from orchqueue.control.sources import Sources


def routes(sources: Sources) -> list[Route]:
    async def replicasets(request: Request) -> Response:
        reader(request)
        pools = await read_pools(sources)
        return JSONResponse({"replicasets": [one for pool in pools for one in _sets(pool)]})

    return [Route("/v1/replicasets", replicasets)]


def _sets(pool: LivePool) -> list[dict[str, Any]]:
    """The sets of one pool; a replica that was never probed is in none."""
    members: dict[str, list[LiveReplica]] = {}
    for replica in pool.replicas:
        if replica.set_id is not None:
            members.setdefault(replica.set_id, []).append(replica)
    return [_set(pool.status.id, set_id, replicas) for set_id, replicas in members.items()]


def _set(pool_id: str, set_id: str, replicas: list[LiveReplica]) -> dict[str, Any]:
    status = replicas[0].status
    total = sum(replica.slots for replica in replicas if replica.ready)
    free = sum(replica.slots_free for replica in replicas)
    document: dict[str, Any] = {
        "id": set_id,
        "pool_id": pool_id,
        "engine": replicas[0].engine,
        "engine_version": status.engine_version or "unknown",
        "model_digest": status.model_digest,
        "reproducible": all(replica.status.reproducible is True for replica in replicas),
        "load": (total - free) / total if total else 0.0,
        "slots_total": total,
        "slots_free": free,
    }
    if status.identity is not None:
        document["identity"] = dict(status.identity)
    return document
