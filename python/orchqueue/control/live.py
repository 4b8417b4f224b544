"""What is there now: the pool manager's knowledge of pools and replicas joined with the scheduler's counts.

The manager knows what a replica is and why it is not ready; the daemon knows what runs on it. Joined by name;
where one of them does not know a replica yet, it counts as having no slots.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchqueue.control.sources import Sources
from orchqueue.pools.status import PoolStatus, ReplicaState, ReplicaStatus


@dataclass(frozen=True, slots=True)
class LiveReplica:
    """One replica: what it is, and what it does at the moment."""

    status: ReplicaStatus
    engine: str
    set_id: str | None
    """Identity of its replica set; None until it has been probed."""
    slots: int
    in_flight: int
    reclaiming: int
    """Slots whose task has ended and whose engine is not known to be idle yet."""

    @property
    def ready(self) -> bool:
        return self.status.state == ReplicaState.READY

    @property
    def slots_free(self) -> int:
        return max(0, self.slots - self.in_flight - self.reclaiming) if self.ready else 0


@dataclass(frozen=True, slots=True)
class LivePool:
    """One pool with its replicas."""

    status: PoolStatus
    queue_depth: int
    replicas: tuple[LiveReplica, ...]

    @property
    def slots_total(self) -> int:
        """Slots that can be had now: those of ready replicas."""
        return sum(replica.slots for replica in self.replicas if replica.ready)

    @property
    def slots_free(self) -> int:
        return sum(replica.slots_free for replica in self.replicas)


async def read_pools(sources: Sources) -> list[LivePool]:
    """Every pool, as of this moment."""
    snapshot = json.loads(await asyncio.to_thread(sources.daemon.snapshot))
    depths = {pool["pool_id"]: sum(pool["queued"].values()) for pool in snapshot["pools"]}
    counts = {replica["replica_id"]: replica for replica in snapshot["replicas"]}
    return [
        LivePool(
            status=pool,
            queue_depth=depths.get(pool.id, 0),
            replicas=tuple(_replica(one, pool.engine, counts.get(one.id, {})) for one in pool.replicas),
        )
        for pool in sources.pools.status()
    ]


def _replica(status: ReplicaStatus, engine: str, counts: Mapping[str, Any]) -> LiveReplica:
    return LiveReplica(
        status=status,
        engine=engine,
        set_id=counts.get("identity"),
        slots=counts.get("slots", 0),
        in_flight=counts.get("in_flight", 0),
        reclaiming=counts.get("reclaiming", 0),
    )
