"""`GET /v1/pools`, `GET /v1/pools/{pool_id}/health` and `GET /v1/replicas`: what is there and how it is.

ORCH-4033, ORCH-4034.
"""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from orchqueue.control.errors import ApiError
from orchqueue.control.live import LivePool, LiveReplica, read_pools
from orchqueue.control.principal import reader
from orchqueue.control.sources import Sources
from orchqueue.pools.status import ReplicaState


def routes(sources: Sources) -> list[Route]:
    async def pools(request: Request) -> Response:
        reader(request)
        live = await read_pools(sources)
        return JSONResponse({"pools": [_health(pool) for pool in live]})

    async def health(request: Request) -> Response:
        reader(request)
        wanted = request.path_params["pool_id"]
        for pool in await read_pools(sources):
            if pool.status.id == wanted:
                return JSONResponse(_health(pool))
        raise ApiError("NOT_FOUND", f"no pool has the id: `{wanted[:80]}`", hint="`GET /v1/pools` lists them")

    async def replicas(request: Request) -> Response:
        reader(request)
        live = await read_pools(sources)
        found = [_replica(pool.status.id, replica) for pool in live for replica in pool.replicas]
        return JSONResponse({"replicas": found})

    return [
        Route("/v1/pools", pools),
        Route("/v1/pools/{pool_id}/health", health),
        Route("/v1/replicas", replicas),
    ]


def _health(pool: LivePool) -> dict[str, Any]:
    status = pool.status
    return {
        "pool_id": status.id,
        "state": status.state.value,
        "live": status.live,
        "ready": status.ready,
        "draining": status.draining,
        "last_error": status.last_error,
        "metrics": {
            "queue_depth": pool.queue_depth,
            "slots_total": pool.slots_total,
            "slots_free": pool.slots_free,
        },
    }


def _replica(pool_id: str, replica: LiveReplica) -> dict[str, Any]:
    status = replica.status
    known = {
        "replicaset_id": replica.set_id,
        "engine_version": status.engine_version,
        "model_digest": status.model_digest,
        "pid": status.pid,
        "reproducible": status.reproducible,
        "not_reproducible_because": status.reason,
    }
    return {
        "id": status.id,
        "pool_id": pool_id,
        "engine": replica.engine,
        "state": _state(replica),
        "managed": status.managed,
        "slots_total": replica.slots,
        "in_flight": replica.in_flight,
        "restarts": status.restarts,
        "last_error": status.last_error,
        **{name: value for name, value in known.items() if value is not None},
    }


def _state(replica: LiveReplica) -> str:
    """The four words of the contract; why a replica is not ready stands in `last_error`."""
    match replica.status.state:
        case ReplicaState.READY:
            return "reclaiming" if replica.reclaiming and not replica.slots_free else "ready"
        case ReplicaState.STARTING:
            return "starting"
        case _:
            return "unready"
