"""Holds the replica sets of a live daemon to their promise: the same request, the same bytes.

Tasks cannot be sent to a replica of choice, so each request is submitted as often at once as its set has
replicas: an idle daemon places the copies on different ones. Where other work came between, it is submitted
again, some rounds at most. A set with one replica is asked twice; that shows less, and the report says so.
Which replica served a copy is what its receipt states.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from orchqueue.determinism.cases import Case, Plan
from orchqueue.determinism.divergence import Decode, Divergence, differ
from orchqueue.errors import AttemptError, OrchqueueError, PoolUnavailable
from orchqueue.events import Token

if TYPE_CHECKING:
    from orchqueue.client import AsyncClient

#: How often a request is submitted to reach a replica that has not served it; each time with more copies.
ROUNDS = 6
#: Copies of one request at once, also where a set has more replicas.
MOST_COPIES = 8
#: Divergences whose streams are fetched for the picture; more of them tell nothing new.
PICTURED = 20


class NothingToCompare(OrchqueueError):
    """No replica set that promises anything was found."""

    hint = "`orchqueue determinism status` tells why"


@dataclass(frozen=True, slots=True)
class Target:
    """One replica set, and how a task is made to go there."""

    identity: str
    pool_id: str
    engine: str
    engine_version: str
    model_digest: str
    replicas: tuple[str, ...]

    def fields(self) -> dict[str, Any]:
        return {"engine": self.engine, "model_ref": self.model_digest}


@dataclass(slots=True)
class SetReport:
    """What came of one replica set."""

    target: Target
    cases: int = 0
    seconds: float = 0.0
    #: Decodes by replica.
    decodes: Counter[str] = field(default_factory=Counter)
    tokens_out: int = 0
    #: Cases that only one replica has served, although the set has several.
    one_sided: int = 0
    divergences: list[Divergence] = field(default_factory=list)
    #: Cases that ended with an error, and the error.
    unfinished: list[tuple[Case, str]] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return self.cases > 0 and not (self.divergences or self.unfinished or self.one_sided)

    def to_dict(self) -> dict[str, Any]:
        target = self.target
        return {
            "ok": self.ok,
            "identity": target.identity,
            "pool_id": target.pool_id,
            "engine": target.engine,
            "engine_version": target.engine_version,
            "model_digest": target.model_digest,
            "replicas": list(target.replicas),
            "cases": self.cases,
            "decodes": dict(self.decodes),
            "tokens_out": self.tokens_out,
            "seconds": round(self.seconds, 3),
            "one_sided": self.one_sided,
            "divergences": [one.to_dict() for one in self.divergences],
            "unfinished": [{"prompt": case.prompt, "error": error} for case, error in self.unfinished],
        }


@dataclass(frozen=True, slots=True)
class SuiteReport:
    """What came of all sets."""

    plan: Plan
    sets: tuple[SetReport, ...]

    @property
    def ok(self) -> bool:
        return bool(self.sets) and all(one.ok for one in self.sets)

    @property
    def divergences(self) -> list[Divergence]:
        return [divergence for one in self.sets for divergence in one.divergences]

    def to_dict(self) -> dict[str, Any]:
        return {
            "ok": self.ok,
            "prompts": self.plan.prompts,
            "tokens": self.plan.tokens,
            "temperatures": list(self.plan.temperatures),
            "seed": self.plan.seed,
            "sets": [one.to_dict() for one in self.sets],
        }


Progress = Callable[[str], None]


def _silent(_: str) -> None:
    """Nobody watches."""


async def run_suite(
    client: AsyncClient, plan: Plan, pool: str | None = None, progress: Progress = _silent
) -> SuiteReport:
    """Decodes every case of `plan` on the reproducible sets of `pool`, or of all pools."""
    targets = await find_targets(client, pool)
    cases = plan.cases()
    reports = []
    for target in targets:
        report = SetReport(target)
        begun = time.monotonic()
        for number, case in enumerate(cases, start=1):
            progress(f"{target.pool_id}: case {number} of {len(cases)}, diverged: {len(report.divergences)}")
            await _check_case(client, case, report)
        report.seconds = time.monotonic() - begun
        report.divergences = [await _with_pieces(client, one) for one in report.divergences[:PICTURED]] + (
            report.divergences[PICTURED:]
        )
        reports.append(report)
    return SuiteReport(plan, tuple(reports))


async def find_targets(client: AsyncClient, pool: str | None) -> list[Target]:
    """The reproducible sets with a ready replica. Raises `NothingToCompare` where there is none."""
    replicas = (await client.replicas()).get("replicas", [])
    sets = (await client.replicasets()).get("replicasets", [])
    wanted = [one for one in sets if pool is None or one.get("pool_id") == pool]
    targets = [_target(one, replicas) for one in wanted if one.get("reproducible")]
    usable = [target for target in targets if target.replicas]
    if not usable:
        where = f"pool `{pool}`" if pool is not None else "any pool"
        raise NothingToCompare(f"no ready replica set of {where} is reproducible")
    return usable


def _target(document: Mapping[str, Any], replicas: Sequence[Mapping[str, Any]]) -> Target:
    names = [
        str(one["id"])
        for one in replicas
        if one.get("replicaset_id") == document["id"]
        and one.get("pool_id") == document.get("pool_id")
        and one.get("state") in ("ready", "reclaiming")
    ]
    return Target(
        identity=str(document["id"]),
        pool_id=str(document.get("pool_id")),
        engine=str(document.get("engine")),
        engine_version=str(document.get("engine_version")),
        model_digest=str(document.get("model_digest")),
        replicas=tuple(sorted(names)),
    )


async def _check_case(client: AsyncClient, case: Case, report: SetReport) -> None:
    try:
        decodes = await _decodes(client, case, report.target)
    except (AttemptError, PoolUnavailable) as error:
        # DETERMINISM_DIVERGED among them: the daemon itself has seen a difference.
        report.unfinished.append((case, str(error)))
        return
    report.cases += 1
    report.decodes.update(one.replica_id for one in decodes)
    report.tokens_out += sum(one.tokens_out for one in decodes)
    seen = {one.replica_id for one in decodes}
    if len(seen) < min(2, len(report.target.replicas)):
        report.one_sided += 1
    reference = decodes[0]
    other = next((one for one in decodes[1:] if differ(reference, one)), None)
    if other is not None:
        report.divergences.append(Divergence(case, reference, other))


async def _decodes(client: AsyncClient, case: Case, target: Target) -> list[Decode]:
    """At least two decodes, until every replica of the set has served one or the rounds are up."""
    fewest = min(max(2, len(target.replicas)), MOST_COPIES)
    decodes: list[Decode] = []
    for number in range(1, ROUNDS + 1):
        # On a busy machine the first copy may be done before the second one arrives: more of them overlap.
        copies = min(fewest * number, MOST_COPIES)
        tasks = [client.run(**case.fields(), **target.fields()) for _ in range(copies)]
        # All copies are awaited, whatever becomes of one: none is left behind on a replica.
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
            decodes.append(decode_of(answer))
        if len({one.replica_id for one in decodes}) >= min(fewest, len(target.replicas)):
            break
    return decodes


def decode_of(task: Mapping[str, Any]) -> Decode:
    """A finished task as one decode; its digest is computed here too and must be the one that is stated."""
    from orchqueue import _core

    output, receipt = task.get("output") or {}, task.get("receipt") or {}
    text = str(output.get("text", ""))
    stated, request = str(receipt.get("output_digest")), str(receipt.get("request_digest"))
    if _core.output_digest(request, text.encode()) != stated:
        stated = f"{stated} (not that of the output)"
    attempts = receipt.get("attempts") or [{}]
    return Decode(
        task_id=str(task.get("task_id")),
        replica_id=str(attempts[-1].get("replica_id")),
        text=text,
        request_digest=request,
        output_digest=stated,
        identity=str(receipt.get("identity")),
        identity_fields=dict(receipt.get("identity_fields") or {}),
        tokens_out=int((output.get("usage") or {}).get("tokens_out", 0)),
    )


async def _with_pieces(client: AsyncClient, divergence: Divergence) -> Divergence:
    """The same with the stored streams of both sides, for the picture."""
    return replace(
        divergence,
        left=replace(divergence.left, pieces=await _pieces(client, divergence.left)),
        right=replace(divergence.right, pieces=await _pieces(client, divergence.right)),
    )


async def _pieces(client: AsyncClient, decode: Decode) -> tuple[str, ...]:
    try:
        async with client.follow(decode.task_id) as stream:
            return tuple([event.text async for event in stream if isinstance(event, Token)])
    except OrchqueueError:
        # The picture then shows the text in one piece.
        return (decode.text,)
