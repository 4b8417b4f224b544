"""Decodes the task of a receipt once more, on the same replica set, and compares what comes out.

A receipt carries digests, not the request: whoever replays must have the body that was submitted. It is held
against the receipt's request digest before anything is decoded, so that a wrong body is told from a broken
promise. The second decode is a task of its own, at level `strict` and with the receipt's seed; nothing is
answered from a cache.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchqueue.determinism.verify import Check, Outcome, ReceiptUnreadable
from orchqueue.errors import OrchqueueError

if TYPE_CHECKING:
    from orchqueue.client import AsyncClient

#: What is about the first submission and not about the text; the rest of the body is sent again as it was.
_NOT_REPEATED = frozenset(
    {"task_id", "session_id", "deadline_ms", "on_disconnect", "priority", "receipt", "reuse", "wait"}
)


class ReplayImpossible(OrchqueueError):
    """Nothing was decoded: the body is another one, or no replica of the receipt's set is there."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Replayed:
    """What the second decode gave."""

    task_id: str
    replica_id: str
    identity: Check
    output: Check

    @property
    def checks(self) -> tuple[Check, ...]:
        return (self.identity, self.output)

    @property
    def ok(self) -> bool:
        return all(check.outcome is Outcome.OK for check in self.checks)


async def replay(client: AsyncClient, receipt: Mapping[str, Any], request: Mapping[str, Any]) -> Replayed:
    """Decodes `request`, the body of the receipt's task, again. Raises `ReplayImpossible` before that."""
    seed, stated = receipt.get("seed"), receipt.get("request_digest")
    if not isinstance(seed, int) or not isinstance(stated, str):
        raise ReceiptUnreadable("a receipt that can be replayed has `seed` and `request_digest`")
    body = replay_body(receipt, request, seed)
    computed = _request_digest(body, str(uuid.UUID(int=0)))
    if computed != stated.removeprefix("sha256:"):
        raise ReplayImpossible(
            f"this is not the request of the receipt: its digest is `{computed}`, not `{stated}`",
            "give the body of `POST /v1/tasks` as it was submitted",
        )
    await _require_set(client, str(receipt.get("identity")))
    task = await client.run(**body)
    second = task.get("receipt") or {}
    return Replayed(
        task_id=str(task.get("task_id")),
        replica_id=str((second.get("attempts") or [{}])[-1].get("replica_id")),
        identity=_same_identity(receipt, second),
        output=_same_output(receipt, second),
    )


def replay_body(receipt: Mapping[str, Any], request: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """The body of the second submission."""
    body = {name: value for name, value in request.items() if name not in _NOT_REPEATED}
    fields = receipt.get("identity_fields") or {}
    # The set is named by what it runs: another pool may serve a model of the same catalog name.
    named = {"engine": fields.get("engine"), "model_ref": fields.get("model_digest")}
    known = {name: value for name, value in named.items() if value not in (None, "unknown")}
    return {**body, **known, "seed": seed, "determinism": "strict"}


def _request_digest(body: Mapping[str, Any], task_id: str) -> str:
    from orchqueue import _core

    try:
        return _core.request_digest(_core.task_effective(json.dumps(body), task_id))
    except ValueError as error:
        raise ReplayImpossible(f"the request is not valid: {error}") from error


async def _require_set(client: AsyncClient, identity: str) -> None:
    sets = (await client.replicasets()).get("replicasets", [])
    found = [one for one in sets if one.get("id") == identity]
    if any(one.get("slots_total") for one in found):
        return
    if found:
        raise ReplayImpossible(f"no replica of set `{identity}` is ready", "`orchqueue replicas` shows why")
    others = ", ".join(f"`{str(one.get('id'))[:12]}`" for one in sets) or "none"
    raise ReplayImpossible(
        f"this daemon has no replica set `{identity}`; its sets: {others}",
        "replay where the same engine, build, model and flags run: see `identity_fields` of the receipt",
    )


def _same_identity(first: Mapping[str, Any], second: Mapping[str, Any]) -> Check:
    if first.get("identity") == second.get("identity"):
        return Check(
            "replay identity", Outcome.OK, f"decoded again by set `{str(first.get('identity'))[:12]}`"
        )
    said = f"decoded again by another set: `{second.get('identity')}`"
    return Check("replay identity", Outcome.FAILED, said)


def _same_output(first: Mapping[str, Any], second: Mapping[str, Any]) -> Check:
    stated, length = first.get("output_digest"), first.get("output_bytes")
    found, found_length = second.get("output_digest"), second.get("output_bytes")
    if isinstance(stated, str) and (stated, length) == (found, found_length):
        return Check("replay output", Outcome.OK, f"the same {length} bytes: digest `{stated}`")
    said = f"digest `{found}` over {found_length} bytes, not `{stated}` over {length}"
    return Check("replay output", Outcome.FAILED, said)
