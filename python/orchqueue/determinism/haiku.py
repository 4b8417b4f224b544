"""The haiku gate: a fresh poem by a real model, driven through the public API of a daemon and nothing else.

The prompt carries the current minute and a nonce, so that no answer can be canned. The counter of output
tokens must have grown by the poem, the replica must say what it runs, and it must behave as a model does.
One more try with another seed is allowed and stands in the report. What a source tree must not contain is
looked for by the release gate in `test-harness/haiku`; users have no source tree.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchqueue.determinism.counters import Counters, MetricsUnreadable
from orchqueue.determinism.engine_proof import prove, stated_faults
from orchqueue.determinism.haiku_prompt import HaikuPrompt
from orchqueue.determinism.verify import Check, Evidence, Outcome, parse_keys, verify
from orchqueue.errors import OrchqueueError, ProtocolError, ServerError

if TYPE_CHECKING:
    from orchqueue.client import AsyncClient

LIMIT_S = 30.0
MAX_TOKENS = 128
COUNTER = "tokens_out_total"


class HaikuUnanswered(OrchqueueError):
    """No poem came within the time that the gate allows."""


@dataclass(frozen=True, slots=True)
class Poem:
    """One answer to the prompt."""

    task_id: str
    seed: int
    text: str
    seconds: float
    tokens_out: int
    #: The replica that finished it.
    replica_id: str | None
    #: What is missing from it.
    faults: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        return {
            "task_id": self.task_id,
            "seed": self.seed,
            "text": self.text,
            "seconds": round(self.seconds, 3),
            "tokens_out": self.tokens_out,
            "replica_id": self.replica_id,
            "faults": list(self.faults),
        }


@dataclass(frozen=True, slots=True)
class HaikuReport:
    """What the gate has seen. The last poem is the one that counts."""

    prompt: HaikuPrompt
    poems: tuple[Poem, ...]
    checks: tuple[Check, ...]

    @property
    def poem(self) -> Poem:
        return self.poems[-1]

    @property
    def ok(self) -> bool:
        return all(check.outcome is Outcome.OK for check in self.checks)

    def to_dict(self) -> dict[str, Any]:
        return {
            "ok": self.ok,
            "prompt": self.prompt.text,
            "minute_words": self.prompt.minute_words,
            "nonce": self.prompt.nonce,
            "retried": len(self.poems) > 1,
            "poems": [poem.to_dict() for poem in self.poems],
            "checks": [check.to_dict() for check in self.checks],
        }


async def run_haiku(client: AsyncClient, prompt: HaikuPrompt, limit_s: float = LIMIT_S) -> HaikuReport:
    """Asks for a poem, once more if the first is not accepted, and checks all that can be checked."""
    before = await _counters(client)
    poems = [await _poem(client, prompt, limit_s)]
    if poems[0].faults:
        poems.append(await _poem(client, prompt, limit_s))
    after = await _counters(client)
    poem = poems[-1]
    replica = await _replica(client, poem.replica_id)
    checks = (
        _accepted(poem),
        _in_time(poem, limit_s),
        _grown(before, after, poem),
        _states_what_it_is(replica),
        await _receipt(client, poem),
        await prove(client, replica),
    )
    return HaikuReport(prompt, tuple(poems), checks)


async def _poem(client: AsyncClient, prompt: HaikuPrompt, limit_s: float) -> Poem:
    seed = secrets.randbelow(2**31)
    message = {"role": "user", "content": prompt.text}
    begun = time.monotonic()
    try:
        async with asyncio.timeout(limit_s):
            task = await client.run(workload="chat", messages=[message], seed=seed, max_tokens=MAX_TOKENS)
    except TimeoutError:
        raise HaikuUnanswered(f"no poem within {limit_s:g} s") from None
    output = task.get("output") or {}
    text = str(output.get("text", ""))
    attempts = task.get("attempts") or [{}]
    return Poem(
        task_id=str(task.get("task_id")),
        seed=seed,
        text=text,
        seconds=time.monotonic() - begun,
        tokens_out=int((output.get("usage") or {}).get("tokens_out", 0)),
        replica_id=attempts[-1].get("replica_id"),
        faults=tuple(prompt.faults(text)),
    )


async def _counters(client: AsyncClient) -> Counters | str:
    """The counters, or why there are none."""
    try:
        return Counters.parse(await client.metrics())
    except (ServerError, ProtocolError, MetricsUnreadable) as error:
        return str(error)


async def _replica(client: AsyncClient, name: str | None) -> dict[str, Any]:
    """The replica of this name; empty where the daemon shows none."""
    try:
        replicas = (await client.replicas()).get("replicas", [])
    except (ServerError, ProtocolError):
        return {}
    return next((one for one in replicas if one.get("id") == name), {})


def _accepted(poem: Poem) -> Check:
    if poem.faults:
        return Check("poem", Outcome.FAILED, "; ".join(poem.faults))
    return Check("poem", Outcome.OK, "three lines with the minute and the nonce")


def _in_time(poem: Poem, limit_s: float) -> Check:
    outcome = Outcome.OK if poem.seconds <= limit_s else Outcome.FAILED
    return Check("time", outcome, f"{poem.seconds:.2f} s of {limit_s:g} s")


def _grown(before: Counters | str, after: Counters | str, poem: Poem) -> Check:
    """The counter of the very replica that wrote the poem has grown by at least the poem."""
    if isinstance(before, str) or isinstance(after, str):
        why = before if isinstance(before, str) else after
        return Check("metrics", Outcome.FAILED, f"`/metrics` is absent: {why}")
    if not after.has(COUNTER):
        return Check("metrics", Outcome.FAILED, f"`/metrics` has no `{COUNTER}`")
    name = poem.replica_id or ""
    growth = after.total(COUNTER, replica_id=name) - before.total(COUNTER, replica_id=name)
    if poem.tokens_out < 1 or growth < poem.tokens_out:
        said = f"`{COUNTER}` of replica `{name}` grew by {growth:g}, the poem has {poem.tokens_out} tokens"
        return Check("metrics", Outcome.FAILED, said)
    return Check("metrics", Outcome.OK, f"`{COUNTER}` of replica `{name}` grew by {growth:g}")


def _states_what_it_is(replica: dict[str, Any]) -> Check:
    faults = stated_faults(replica) if replica else ["the daemon does not show the replica"]
    if faults:
        return Check("replica", Outcome.FAILED, "; ".join(faults))
    said = f"`{replica['id']}` runs {replica['engine_version']}, model {replica['model_digest']}"
    return Check("replica", Outcome.OK, said)


async def _receipt(client: AsyncClient, poem: Poem) -> Check:
    receipt = await client.receipt(poem.task_id)
    evidence = Evidence(output={"text": poem.text})
    verification = verify(receipt, parse_keys(await client.receipt_keys()), evidence)
    if verification.ok:
        return Check("receipt", Outcome.OK, "signed, and its digests are those of the poem")
    failed = [f"{one.name}: {one.reason}" for one in verification.checks if one.outcome is Outcome.FAILED]
    return Check("receipt", Outcome.FAILED, "; ".join(failed))
