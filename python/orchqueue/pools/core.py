"""What pools say to the Rust daemon. The only module that spells the pool commands."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol

from orchqueue.pools.probe import Access, Probed
from orchqueue.pools.status import PoolState

if TYPE_CHECKING:
    from orchqueue.adapters import Adapter
    from orchqueue.config import PoolConfig


#: Context of a pool whose engine has not told it yet: the engine itself is the bound.
UNBOUNDED_CTX = 4_294_967_295


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolFacts:
    """What a pool serves, as far as it is known, and its state."""

    #: Names under which clients may ask for its model; the first is shown.
    models: tuple[str, ...]
    ctx: int | None
    longest_token_bytes: int | None
    state: PoolState


class CommandRefused(Exception):
    """The daemon did not take a command. The message is its own."""


class CoreDaemon(Protocol):
    """The part of `orchqueue._core.Daemon` that pools need."""

    def apply(self, command_json: str) -> str: ...


class CoreCommands:
    """One method per command."""

    def __init__(self, daemon: CoreDaemon) -> None:
        self._daemon = daemon

    def pool_set(self, pool: PoolConfig, adapter: Adapter, facts: PoolFacts) -> None:
        self._apply(
            op="pool_set",
            pool=pool.id,
            engine=pool.engine,
            models=list(facts.models),
            ctx=UNBOUNDED_CTX if facts.ctx is None else facts.ctx,
            workloads=list(adapter.workloads),
            determinism=pool.determinism,
            timeouts=asdict(pool.timeouts),
            state=facts.state,
            longest_token_bytes=facts.longest_token_bytes,
            adapter=adapter.document(),
        )

    def pool_state(self, pool: str, state: PoolState) -> None:
        self._apply(op="pool_state", pool=pool, state=state)

    def replica_set(self, pool: str, replica: str, probed: Probed, access: Access) -> None:
        self._apply(
            op="replica_set",
            pool=pool,
            replica=replica,
            slots=probed.slots,
            reproducible=probed.reproducible,
            engine_version=probed.engine_version,
            model_digest=probed.model_digest,
            identity=dict(probed.identity),
            url=access.url,
            api_key=access.api_key,
            ca_file=access.ca_file,
        )

    def replica_ready(self, replica: str) -> None:
        self._apply(op="replica_ready", replica=replica)

    def replica_unready(self, replica: str) -> None:
        self._apply(op="replica_unready", replica=replica)

    def replica_remove(self, replica: str) -> None:
        self._apply(op="replica_remove", replica=replica)

    def _apply(self, **command: Any) -> None:
        try:
            self._daemon.apply(json.dumps(command))
        except ValueError as error:
            raise CommandRefused(str(error)) from error
