"""Keeps every pool: starts its replicas, derives its state from theirs, tells the scheduler."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

from orchqueue.config.runtime import AttachedReplica
from orchqueue.engines import embedded
from orchqueue.engines.spawn import remove_stale
from orchqueue.pools.catalog import Digests
from orchqueue.pools.core import CoreCommands, CoreDaemon
from orchqueue.pools.pool import Pool
from orchqueue.pools.replica import ReplicaKeeper, Timing
from orchqueue.pools.source import AttachedSource, EmbeddedSource, ReplicaSource
from orchqueue.pools.status import PoolStatus

if TYPE_CHECKING:
    from orchqueue.config import Config, ReplicaConfig

log = logging.getLogger(__name__)


class PoolsUnusable(Exception):
    """The pools cannot be run as the environment demands. The message says what to do."""


class Supervisor:
    """All pools of one daemon. Every method runs on one event loop."""

    def __init__(self, daemon: CoreDaemon, config: Config, timing: Timing | None = None) -> None:
        self._core = CoreCommands(daemon)
        self._config = config
        state_dir = config.store.state_dir
        self._notes = state_dir / "replicas"
        self._digests = Digests(state_dir / "digests.json")
        self._timing = timing or Timing()
        self._pools: dict[str, Pool] = {}
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Tells the scheduler every pool and begins to bring the replicas up; does not wait for them."""
        self._check_real_engine()
        self._config.store.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._notes.mkdir(exist_ok=True)
        for pid in remove_stale(self._notes):
            log.warning("removed a replica that an earlier daemon left behind", extra={"pid": pid})
        for pool in self._config.pools:
            kept = Pool(pool, self._core, same_engine=self._config.conventions.require_same_engine)
            self._pools[pool.id] = kept
            kept.declare()
            for replica in pool.replicas:
                kept.keepers.append(self._keeper(kept, replica))
        for kept in self._pools.values():
            self._tasks += [asyncio.ensure_future(keeper.run(self._digests)) for keeper in kept.keepers]

    async def on_event(self, event: Mapping[str, object]) -> None:
        """An event of the daemon. Only `probe` is for pools."""
        if event.get("event") != "probe":
            return
        for pool in self._pools.values():
            for keeper in pool.keepers:
                if keeper.name == event.get("replica"):
                    keeper.suspect(str(event.get("reason") or "unknown"))

    def status(self) -> list[PoolStatus]:
        """Every pool as it is now."""
        return [pool.status() for pool in self._pools.values()]

    async def stop(self, deadline_ms: int) -> None:
        """Ends every managed replica; what still runs at the deadline is killed. Nothing is told any more."""
        for pool in self._pools.values():
            pool.stopping = True
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            grace = max(deadline_ms / 1000, self._timing.stop_grace_s + 1.0)
            await asyncio.wait(self._tasks, timeout=grace)

    def _keeper(self, pool: Pool, replica: ReplicaConfig) -> ReplicaKeeper:
        source: ReplicaSource
        if isinstance(replica, AttachedReplica):
            source = AttachedSource(replica)
        else:
            source = EmbeddedSource(pool.config, replica, self._notes, self._digests)
        return ReplicaKeeper(replica.id, pool.config.id, source, pool.adapter, pool, self._timing)

    def _check_real_engine(self) -> None:
        if self._config.conventions.require_real_llama and embedded.engine_version() is None:
            raise PoolsUnusable(
                f"`REQUIRE_REAL_LLAMA=1`, but the package `{embedded.PACKAGE}` is not installed\n"
                "hint: pip install 'orchqueue[embedded]'"
            )
