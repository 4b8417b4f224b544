"""One pool: its facts, its state derived from its replicas', and which replicas it takes."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from orchqueue.adapters import adapter_for
from orchqueue.pools.catalog import ModelUnavailable, find_model
from orchqueue.pools.core import CommandRefused, CoreCommands, PoolFacts
from orchqueue.pools.probe import UNKNOWN, Access, Probed
from orchqueue.pools.replica import Lost, ReplicaKeeper
from orchqueue.pools.status import PoolState, PoolStatus, ReplicaState

if TYPE_CHECKING:
    from orchqueue.config import PoolConfig

log = logging.getLogger(__name__)


class Pool:
    """Stands between the replicas of one pool and the scheduler."""

    def __init__(self, config: PoolConfig, core: CoreCommands, *, same_engine: bool) -> None:
        self.config = config
        self.adapter = adapter_for(config.engine)
        self.keepers: list[ReplicaKeeper] = []
        #: The daemon is going down: nothing is told to the scheduler any more.
        self.stopping = False
        self._core = core
        self._same_engine = same_engine
        self._engine_version: str | None = None
        self._facts, self._wanted_digest = _known_before(config)

    def declare(self) -> None:
        """Tells the scheduler that the pool exists: from here on its tasks are queued."""
        self._core.pool_set(self.config, self.adapter, self._facts)

    def status(self) -> PoolStatus:
        replicas = tuple(keeper.status() for keeper in self.keepers)
        errors = [
            one.last_error for one in replicas if one.last_error and one.state is not ReplicaState.READY
        ]
        state = self._facts.state
        return PoolStatus(
            id=self.config.id,
            engine=self.config.engine,
            state=state,
            live=state is not PoolState.FAILED,
            ready=state is PoolState.READY,
            draining=state is PoolState.DRAINING,
            last_error=errors[0] if errors else None,
            models=self._facts.models,
            ctx=self._facts.ctx,
            workloads=self.adapter.workloads,
            determinism=self.config.determinism,
            replicas=replicas,
        )

    def announce(self, replica: str, probed: Probed, access: Access) -> None:
        """Takes a replica in, or raises `Lost` with the reason why not."""
        if (fault := self._fault(probed)) is not None:
            raise Lost(fault, permanent=True)
        self._learn(probed)
        try:
            self._core.replica_set(self.config.id, replica, probed, access)
        except CommandRefused as error:
            raise Lost(str(error), permanent=True) from error
        self._engine_version = probed.engine_version
        self._core.replica_ready(replica)

    def ready(self, replica: str) -> None:
        self._core.replica_ready(replica)

    def unready(self, replica: str) -> None:
        self._tell(self._core.replica_unready, replica)

    def retire(self, replica: str) -> None:
        self._tell(self._core.replica_remove, replica)

    def _tell(self, command: Callable[[str], None], replica: str) -> None:
        """Bad news cannot be refused: a daemon that goes down may not want to hear them any more."""
        if self.stopping:
            return
        try:
            command(replica)
        except CommandRefused as error:
            log.warning("command refused", extra={"replica_id": replica, "cause": str(error)})

    def changed(self, replica: str) -> None:
        """Derives the pool's state anew and tells it when it is another one."""
        state = derive([keeper.state for keeper in self.keepers])
        if state is not self._facts.state and not self.stopping:
            self._facts = replace(self._facts, state=state)
            self._core.pool_state(self.config.id, state)

    def _fault(self, probed: Probed) -> str | None:
        """Why this replica does not belong here."""
        pinned = self._engine_version
        if self._same_engine and pinned is not None and probed.engine_version != pinned:
            return f"engine version {probed.engine_version}, but the pool has {pinned} and takes no other"
        wanted = self._wanted_digest
        if wanted is not None and probed.model_digest != wanted:
            if probed.model_digest != UNKNOWN:
                return f"serves the model {probed.model_digest}, the pool wants {wanted}"
            if self.config.model == wanted:
                return "the digest of its model is not known; declare `model_digest`"
        if self.config.ctx is not None and probed.ctx is not None and probed.ctx < self.config.ctx:
            return f"its context is {probed.ctx}, the pool has `ctx`: {self.config.ctx}"
        return None

    def _learn(self, probed: Probed) -> None:
        """Names and context that only a running replica knows."""
        known = self._facts
        names = () if self.config.model is not None else probed.model_names
        digest = () if probed.model_digest == UNKNOWN else (probed.model_digest,)
        models = tuple(dict.fromkeys((*known.models, *names, *digest)))
        ctx = known.ctx
        if self.config.ctx is None and probed.ctx is not None:
            ctx = min(probed.ctx, ctx) if ctx is not None else probed.ctx
        learned = replace(known, models=models, ctx=ctx)
        if learned != known:
            self._facts = learned
            self.declare()


def derive(states: list[ReplicaState]) -> PoolState:
    """The state of a pool from those of its replicas."""
    if ReplicaState.READY in states:
        return PoolState.READY
    if states and all(state is ReplicaState.FAILED for state in states):
        return PoolState.FAILED
    return PoolState.STARTING


def _known_before(config: PoolConfig) -> tuple[PoolFacts, str | None]:
    """What is known of a pool before a replica runs, and the digest that its replicas must have."""
    nothing = PoolFacts(models=(), ctx=config.ctx, longest_token_bytes=None, state=PoolState.STARTING)
    if config.model is None:
        return nothing, None
    try:
        model = find_model(config.model)
    except ModelUnavailable:
        # A managed replica reports it with the reason; an attached one may well have the model.
        wanted = config.model if config.model.startswith("sha256:") else None
        return replace(nothing, models=(config.model,)), wanted
    digest = () if model.digest is None else (model.digest,)
    facts = PoolFacts(
        models=(model.name, *digest),
        ctx=config.ctx or model.ctx,
        longest_token_bytes=model.longest_token_bytes,
        state=PoolState.STARTING,
    )
    return facts, model.digest
