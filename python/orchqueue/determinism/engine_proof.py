"""Tells a real engine from one that only says what it was told to say, through the public API alone.

A replica that the daemon has started itself is known to be real: the daemon knows the file that it loads.
What somebody else runs at an address is believed only if it behaves as a sampler does. Short tasks show it:
the count is exact, a longer answer begins with the shorter one, no chance is left at temperature 0, there is
chance above it and the seed decides it, and a token that is forbidden does not come. A script or a stub can
state any version and echo any nonce; to answer these it would have to be a language model.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchqueue.determinism.verify import Check, Outcome
from orchqueue.errors import AttemptError, PoolUnavailable

if TYPE_CHECKING:
    from orchqueue.client import AsyncClient

PROMPT = "Once more the river"
SHORT, LONG = 7, 12
SEEDS = (1, 2, 3, 4)
#: Wide open: every token may come, so that different seeds give different texts.
_OPEN = {"temperature": 2.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}
_GREEDY = {"temperature": 0.0}
_NAME = "real engine"


@dataclass(frozen=True, slots=True)
class Sample:
    """What one short task gave."""

    text: str
    tokens_out: int
    finish_reason: str
    #: Empty where the engine does not give them all.
    token_ids: tuple[int, ...]
    replica_id: str | None


async def prove(client: AsyncClient, replica: Mapping[str, Any]) -> Check:
    """One check over everything that `replica`, as `GET /v1/replicas` shows it, states and does."""
    faults = stated_faults(replica)
    if not faults:
        try:
            faults = await behaviour_faults(client, replica)
        except (AttemptError, PoolUnavailable) as error:
            faults = [f"a short task failed: {error}"]
    if faults:
        return Check(_NAME, Outcome.FAILED, "; ".join(faults))
    started = "started by the daemon" if replica.get("managed") else "attached"
    return Check(_NAME, Outcome.OK, f"{replica.get('id')}: {started}, samples as a model does")


def stated_faults(replica: Mapping[str, Any]) -> list[str]:
    """What a replica fails to state about itself."""
    digest, version = replica.get("model_digest"), replica.get("engine_version")
    faults = []
    if not isinstance(version, str) or version in ("", "unknown"):
        faults.append("`engine_version` is not known")
    if not isinstance(digest, str) or not _is_digest(digest):
        faults.append("`model_digest` is not known")
    return faults


def _is_digest(text: str) -> bool:
    bare = text.removeprefix("sha256:")
    return len(bare) == 64 and set(bare) <= set("0123456789abcdef")


async def behaviour_faults(client: AsyncClient, replica: Mapping[str, Any]) -> list[str]:
    """What shows that no model answers; nothing where one does."""
    asked = {"model_ref": replica.get("model_digest"), "engine": replica.get("engine")}

    async def sample(tokens: int, seed: int, **sampler: Any) -> Sample:
        task = await client.run(PROMPT, max_tokens=tokens, seed=seed, ignore_eos=True, **asked, **sampler)
        return _sample(task)

    short, long = await asyncio.gather(sample(SHORT, 1, **_GREEDY), sample(LONG, 2, **_GREEDY))
    drawn = await asyncio.gather(*(sample(LONG, seed, **_OPEN) for seed in (*SEEDS, SEEDS[0])))
    faults = [
        *_count_faults(short, long),
        *_seed_faults(drawn),
        *_stand_in_faults([short, long, *drawn], replica),
    ]
    if not long.token_ids:
        # Only engines that give ids can be asked to leave one out; what the daemon starts needs no asking.
        return faults if replica.get("managed") else [*faults, "it gives no token ids"]
    first = long.token_ids[0]
    other = await sample(LONG, 2, **_GREEDY, logit_bias={str(first): -100})
    if first in other.token_ids or other.text == long.text:
        faults.append("a token that was forbidden came all the same")
    return faults


def _stand_in_faults(samples: list[Sample], replica: Mapping[str, Any]) -> list[str]:
    """A replica that has to prove itself must not let another one of its set do it."""
    others = sorted({str(one.replica_id) for one in samples if one.replica_id != replica.get("id")})
    if replica.get("managed") or not others:
        return []
    return [f"it is attached, and others answered for it: {', '.join(others)}; run the gate with it alone"]


def _count_faults(short: Sample, long: Sample) -> list[str]:
    faults = []
    for sample, wanted in ((short, SHORT), (long, LONG)):
        if (sample.tokens_out, sample.finish_reason) != (wanted, "length"):
            faults.append(f"{wanted} tokens were asked for, {sample.tokens_out} came")
    if not long.text.startswith(short.text) or long.text == short.text:
        faults.append("at temperature 0 a longer answer does not begin with the shorter one")
    return faults


def _seed_faults(drawn: list[Sample]) -> list[str]:
    faults = []
    if len({sample.text for sample in drawn}) == 1:
        faults.append("the seed changes nothing at a high temperature")
    if drawn[0].text != drawn[-1].text:
        faults.append("the same seed gives different texts")
    return faults


def _sample(task: Mapping[str, Any]) -> Sample:
    output, receipt = task.get("output") or {}, task.get("receipt") or {}
    return Sample(
        text=str(output.get("text", "")),
        tokens_out=int((output.get("usage") or {}).get("tokens_out", 0)),
        finish_reason=str(output.get("finish_reason")),
        token_ids=tuple(receipt.get("token_ids") or ()),
        replica_id=(task.get("attempts") or [{}])[-1].get("replica_id"),
    )
