"""What a receipt's verification finds, with real signatures."""

import json
from typing import Any

import pytest
from orchqueue import _core
from orchqueue.determinism.verify import (
    Evidence,
    Outcome,
    ReceiptUnreadable,
    Verification,
    parse_keys,
    verify,
)

TASK_ID = "0f8fad5b-d9cb-469f-a165-70867728950e"
TASK = {"prompt": "Hi", "seed": 7, "max_tokens": 8}
OUTPUT = {"text": "Hello you", "finish_reason": "stop"}
FIELDS = {
    "engine": "llamacpp",
    "build": "1",
    "model_digest": "ab" * 32,
    "quant": "f16",
    "ctx": 512,
    "sampler_profile_version": "v1",
    "device_class": "cpu",
    "flags": {},
}
EVIDENCE = Evidence(task=TASK, output=OUTPUT)
KEY_ID, SECRET, PUBLIC = _core.generate_receipt_key()


def unsigned(**changes: Any) -> dict[str, Any]:
    request = _core.request_digest(_core.task_effective(json.dumps(TASK), TASK_ID))
    return {
        "task_id": TASK_ID,
        "request_digest": request,
        "output_digest": _core.output_digest(request, b"Hello you"),
        "output_bytes": 9,
        "identity": _core.identity_digest(json.dumps(FIELDS)),
        "identity_fields": FIELDS,
        "seed": 7,
        **changes,
    }


def signed(**changes: Any) -> dict[str, Any]:
    receipt: dict[str, Any] = json.loads(_core.sign_receipt(json.dumps(unsigned(**changes)), KEY_ID, SECRET))
    return receipt


def outcomes(verification: Verification) -> dict[str, str]:
    return {check.name: check.outcome.value for check in verification.checks}


def test_a_true_receipt_passes_every_check() -> None:
    verification = verify(signed(), {KEY_ID: PUBLIC}, EVIDENCE)
    assert verification.ok
    assert set(outcomes(verification).values()) == {"ok"}
    assert verification.task_id == TASK_ID


def test_without_evidence_the_signature_alone_is_enough() -> None:
    verification = verify(signed(), {KEY_ID: PUBLIC})
    assert verification.ok
    assert outcomes(verification) == {
        "signature": "ok",
        "identity": "ok",
        "request": "skipped",
        "output": "skipped",
    }


def test_an_unsigned_receipt_never_passes() -> None:
    verification = verify(unsigned(), {KEY_ID: PUBLIC}, EVIDENCE)
    assert not verification.ok
    assert outcomes(verification)["signature"] == "failed"


@pytest.mark.parametrize("field", ["task_id", "output_digest", "seed", "key_id"])
def test_a_changed_field_breaks_the_signature(field: str) -> None:
    receipt = signed()
    receipt[field] = "another" if field != "seed" else 8
    assert not verify(receipt, {KEY_ID: PUBLIC, "another": PUBLIC}).ok


def test_a_key_that_is_not_known_is_named() -> None:
    check = verify(signed(), {}).checks[0]
    assert check.outcome is Outcome.FAILED
    assert f"`{KEY_ID}`" in check.reason


def test_another_key_does_not_do() -> None:
    _, _, other = _core.generate_receipt_key()
    assert not verify(signed(), {KEY_ID: other}).ok


def test_a_signature_that_is_not_one_fails() -> None:
    assert not verify({**signed(), "signature": "zz"}, {KEY_ID: PUBLIC}).ok


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"identity": "00" * 32}, "identity"),
        ({"request_digest": "00" * 32}, "request"),
        ({"output_digest": "00" * 32}, "output"),
    ],
)
def test_a_receipt_signed_over_something_untrue_fails(changes: dict[str, str], name: str) -> None:
    verification = verify(signed(**changes), {KEY_ID: PUBLIC}, EVIDENCE)
    assert not verification.ok
    assert outcomes(verification)["signature"] == "ok"
    assert outcomes(verification)[name] == "failed"


def test_output_of_several_channels_is_not_recomputed() -> None:
    evidence = Evidence(output={**OUTPUT, "reasoning": "hm"})
    assert outcomes(verify(signed(), {KEY_ID: PUBLIC}, evidence))["output"] == "skipped"


def test_something_else_is_not_a_receipt() -> None:
    with pytest.raises(ReceiptUnreadable, match="no `task_id`"):
        verify({}, {})


def test_keys_are_read_from_their_document() -> None:
    document = {"keys": [{"key_id": KEY_ID, "public_hex": PUBLIC, "algorithm": "Ed25519", "active": True}]}
    assert parse_keys(document) == {KEY_ID: PUBLIC}


@pytest.mark.parametrize("document", [{}, {"keys": {}}, {"keys": [{"public_hex": "x"}]}])
def test_what_is_no_document_of_keys_is_refused(document: dict[str, Any]) -> None:
    with pytest.raises(ReceiptUnreadable):
        parse_keys(document)


def test_the_document_form_names_every_check() -> None:
    document = verify(signed(), {KEY_ID: PUBLIC}, EVIDENCE).to_dict()
    assert document["ok"] is True
    assert [check["name"] for check in document["checks"]] == ["signature", "identity", "request", "output"]
