"""What the daemon promises at this moment, per replica set, and how it has kept it so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from orchqueue.determinism.counters import Counters

if TYPE_CHECKING:
    from orchqueue.client import AsyncClient

#: Counters of the whole pool, and how many of them a person wants to be zero is said by their names.
POOL_COUNTERS = ("divergences_total", "failovers_total", "tokens_redecoded_total")


@dataclass(frozen=True, slots=True)
class SetStatus:
    """One replica set."""

    identity: str
    pool_id: str
    engine: str
    engine_version: str
    model_digest: str
    reproducible: bool
    #: Why it is not reproducible, a reason per replica; empty when it is.
    reasons: Mapping[str, str]
    #: State by replica.
    replicas: Mapping[str, str]
    #: Counters of the pool since the daemon started.
    counters: Mapping[str, int] = field(default_factory=dict)
    identity_fields: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return {
            "identity": self.identity,
            "pool_id": self.pool_id,
            "engine": self.engine,
            "engine_version": self.engine_version,
            "model_digest": self.model_digest,
            "reproducible": self.reproducible,
            "not_reproducible_because": dict(self.reasons),
            "replicas": dict(self.replicas),
            **self.counters,
            "identity_fields": dict(self.identity_fields),
        }


async def read_status(client: AsyncClient, pool: str | None = None) -> list[SetStatus]:
    """The sets of `pool`, or of all pools."""
    sets = (await client.replicasets()).get("replicasets", [])
    replicas = (await client.replicas()).get("replicas", [])
    counters = Counters.parse(await client.metrics())
    return [_status(one, replicas, counters) for one in sets if pool is None or one.get("pool_id") == pool]


def _status(
    document: Mapping[str, Any], replicas: Sequence[Mapping[str, Any]], counters: Counters
) -> SetStatus:
    pool_id = str(document.get("pool_id"))
    members = [
        one
        for one in replicas
        if one.get("replicaset_id") == document["id"] and one.get("pool_id") == pool_id
    ]
    return SetStatus(
        identity=str(document["id"]),
        pool_id=pool_id,
        engine=str(document.get("engine")),
        engine_version=str(document.get("engine_version")),
        model_digest=str(document.get("model_digest")),
        reproducible=document.get("reproducible") is True,
        reasons={
            str(one["id"]): str(one["not_reproducible_because"])
            for one in members
            if one.get("not_reproducible_because")
        },
        replicas={str(one["id"]): str(one.get("state")) for one in members},
        counters={name: int(counters.total(name, pool_id=pool_id)) for name in POOL_COUNTERS},
        identity_fields=dict(document.get("identity") or {}),
    )
