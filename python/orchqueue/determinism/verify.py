"""Checks a receipt: was it signed by this key, and does what it states fit together?

A receipt is checked by anyone who has the daemon's public keys; the daemon itself is not asked. Three
checks are made: the signature, the identity of the replica set against its fields, and, where the request
or the output is at hand, the digests over them. A check that cannot be made is reported as such and is
not a failure, but a receipt without a valid signature never passes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from orchqueue.errors import OrchqueueError


class ReceiptUnreadable(OrchqueueError):
    """What was given is not a receipt, or not a list of keys."""


class Outcome(StrEnum):
    #: The check was made and holds.
    OK = "ok"
    #: The check was made and does not hold.
    FAILED = "failed"
    #: The check could not be made; the reason says what is missing.
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Check:
    name: str
    outcome: Outcome
    reason: str

    def to_dict(self) -> dict[str, str]:
        return {"name": self.name, "outcome": self.outcome.value, "reason": self.reason}


@dataclass(frozen=True, slots=True)
class Verification:
    """What came of a receipt's checks."""

    task_id: str | None
    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        """The signature holds and nothing that could be recomputed differs."""
        signed = any(check.name == "signature" and check.outcome is Outcome.OK for check in self.checks)
        return signed and all(check.outcome is not Outcome.FAILED for check in self.checks)

    def to_dict(self) -> dict[str, Any]:
        return {
            "ok": self.ok,
            "task_id": self.task_id,
            "checks": [check.to_dict() for check in self.checks],
        }


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is at hand beside the receipt itself."""

    #: The body of the task as it was submitted.
    task: Mapping[str, Any] | None = None
    #: The task's `output` as the daemon stores it.
    output: Mapping[str, Any] | None = None


def parse_keys(document: Mapping[str, Any]) -> dict[str, str]:
    """Public keys by key id, from the answer of `GET /v1/receipt-keys` or a file of the same form."""
    keys = document.get("keys")
    if not isinstance(keys, list):
        raise ReceiptUnreadable("a document of receipt keys has a list `keys`")
    found: dict[str, str] = {}
    for key in keys:
        if not isinstance(key, dict) or not isinstance(key.get("key_id"), str):
            raise ReceiptUnreadable("every receipt key has a `key_id`")
        public = key.get("public_hex", key.get("public_key"))
        if isinstance(public, str):
            found[key["key_id"]] = public
    return found


def verify(
    receipt: Mapping[str, Any], public_keys: Mapping[str, str], evidence: Evidence | None = None
) -> Verification:
    """Checks `receipt` against `public_keys` (key id → public key in hex) and against what is at hand."""
    evidence = evidence or Evidence()
    if not isinstance(receipt.get("task_id"), str):
        raise ReceiptUnreadable("this is not a receipt: it has no `task_id`")
    checks = (
        _signature(receipt, public_keys),
        _identity(receipt),
        _request(receipt, evidence),
        _output(receipt, evidence),
    )
    return Verification(receipt["task_id"], checks)


def _signature(receipt: Mapping[str, Any], public_keys: Mapping[str, str]) -> Check:
    key_id = receipt.get("key_id")
    if not isinstance(key_id, str) or not isinstance(receipt.get("signature"), str):
        return Check("signature", Outcome.FAILED, "the receipt is not signed")
    public = public_keys.get(key_id)
    if public is None:
        return Check("signature", Outcome.FAILED, f"no public key is known for key id: `{key_id}`")
    from orchqueue import _core

    try:
        valid = _core.verify_receipt(json.dumps(receipt), public)
    except ValueError as error:
        return Check("signature", Outcome.FAILED, f"it cannot be checked: {error}")
    if not valid:
        return Check("signature", Outcome.FAILED, f"it was not made by key `{key_id}` over this content")
    return Check("signature", Outcome.OK, f"made by key `{key_id}`")


def _identity(receipt: Mapping[str, Any]) -> Check:
    stated, fields = receipt.get("identity"), receipt.get("identity_fields")
    if not isinstance(stated, str) or not isinstance(fields, dict):
        return Check("identity", Outcome.SKIPPED, "the receipt does not state the fields of its replica set")
    from orchqueue import _core

    return _compare("identity", stated, _core.identity_digest(json.dumps(fields)), "its fields")


def _request(receipt: Mapping[str, Any], evidence: Evidence) -> Check:
    stated = receipt.get("request_digest")
    if evidence.task is None or not isinstance(stated, str):
        return Check("request", Outcome.SKIPPED, "the request is not at hand")
    from orchqueue import _core

    effective = _core.task_effective(json.dumps(evidence.task), receipt["task_id"])
    return _compare("request", stated, _core.request_digest(effective), "the request")


def _output(receipt: Mapping[str, Any], evidence: Evidence) -> Check:
    stated, request_digest = receipt.get("output_digest"), receipt.get("request_digest")
    if evidence.output is None or not isinstance(stated, str) or not isinstance(request_digest, str):
        return Check("output", Outcome.SKIPPED, "the output is not at hand")
    text = evidence.output.get("text")
    if not isinstance(text, str) or evidence.output.get("reasoning") or evidence.output.get("tool_calls"):
        return Check("output", Outcome.SKIPPED, "the order of its channels is not kept with the output")
    from orchqueue import _core

    computed = _core.output_digest(_bare(request_digest), text.encode())
    return _compare("output", stated, computed, "the output")


def _compare(name: str, stated: str, computed: str, over: str) -> Check:
    if _bare(stated) == _bare(computed):
        return Check(name, Outcome.OK, f"equals the digest over {over}")
    return Check(name, Outcome.FAILED, f"differs from the digest over {over}: `{_bare(computed)}`")


def _bare(digest: str) -> str:
    """A digest may be written with its algorithm in front."""
    return digest.removeprefix("sha256:")
