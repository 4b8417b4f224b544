"""The receipt vectors, checked by a second party: nothing of orchqueue is imported here.

`verify` is the whole verifier. It follows contracts/receipts/README.md and needs an RFC 8785 library,
sha256 and Ed25519.
"""

from __future__ import annotations

import json
import random
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import rfc8785
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

pytestmark = pytest.mark.req("ORCH-4014", "ORCH-4015", "ORCH-4016")

FOLDER = Path(__file__).parents[2] / "contracts" / "receipts"
NAMES = ["completion", "chat", "empty"]

PROFILE_V1 = {
    "temperature": 0.7,
    "top_k": 40,
    "top_p": 0.95,
    "min_p": 0.05,
    "typical_p": 1.0,
    "repeat_penalty": 1.0,
    "repeat_last_n": 64,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
}
DEFAULTS: dict[str, Any] = {
    **PROFILE_V1,
    "workload": "completion",
    "max_tokens": 256,
    "stop": [],
    "ignore_eos": False,
    "sampler_profile_version": "v1",
}
COVERED = {*DEFAULTS, "prompt", "messages", "inputs", "seed", "tools", "response_format", "logit_bias"}
MEMBERS = {
    *("name", "key", "request", "effective", "request_digest", "events"),
    *("output_hex", "digests", "terminal_id", "receipt"),
}


class Refused(Exception):
    """The vector does not hold; the message names the first check that failed."""


def check(holds: bool, what: str) -> None:
    if not holds:
        raise Refused(what)


def jcs_hex(value: Any) -> str:
    return sha256(rfc8785.dumps(value)).hexdigest()


def effective_of(request: dict[str, Any]) -> dict[str, Any]:
    seed = int.from_bytes(sha256(request["task_id"].lower().encode()).digest()[:4], "big") & 0x7FFFFFFF
    return {**DEFAULTS, "seed": seed, **{k: v for k, v in request.items() if k in COVERED}}


def verify_output(vector: dict[str, Any]) -> bytes:
    output, channel, cuts = b"", 0, [0]
    expected: list[dict[str, Any]] = []
    for event in vector["events"]:
        check(set(event) == {"c", "t"}, "event")
        if event["c"] != channel:
            channel = event["c"]
            output += bytes([0xFF, channel])
        output += event["t"].encode()
        cuts.append(len(output))
    check(vector["output_hex"] == output.hex(), "output")
    for k in cuts:
        digest = sha256(bytes.fromhex(vector["request_digest"]) + output[:k]).hexdigest()
        expected.append({"k": k, "digest": digest, "event_id": f"{k}-{digest[:16]}"})
    check(vector["digests"] == expected, "digests")
    check(vector["terminal_id"] == f"{expected[-1]['event_id']}-end", "terminal id")
    return output


def verify_receipt(vector: dict[str, Any], output: bytes) -> None:
    receipt, key = dict(vector["receipt"]), vector["key"]
    signature = receipt.pop("signature")
    public = bytes.fromhex(key["public_hex"])
    check(public.hex() == key["public_hex"] and bytes.fromhex(signature).hex() == signature, "hex")
    Ed25519PublicKey.from_public_bytes(public).verify(bytes.fromhex(signature), rfc8785.dumps(receipt))
    check(receipt["key_id"] == key["key_id"] == sha256(public).hexdigest()[:16], "key id")
    check(receipt["request_digest"] == vector["request_digest"], "request digest of the receipt")
    check(receipt["output_digest"] == vector["digests"][-1]["digest"], "output digest")
    check(receipt["output_bytes"] == len(output), "output bytes")
    check(receipt["identity"] == jcs_hex(receipt["identity_fields"]), "identity")
    check(receipt["seed"] == vector["effective"]["seed"], "seed")
    check(receipt["task_id"] == vector["request"]["task_id"], "task id")
    check(vector["request"].get("determinism", "strict") == receipt["determinism"], "determinism")


def verify_key(key: dict[str, str]) -> None:
    """Only for vectors: with the test key's secret, which no real receipt comes with."""
    secret = bytes.fromhex(key["secret_hex"])
    public = Ed25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw()
    check(secret.hex() == key["secret_hex"] and public.hex() == key["public_hex"], "key pair")


def verify(name: str, content: bytes) -> None:
    """Raises unless every byte of the vector is right."""
    vector = json.loads(content)
    check(set(vector) == MEMBERS and vector["name"] == name, "members")
    request = vector["request"]
    check(set(request) <= COVERED | {"task_id", "determinism"}, "request")
    check(vector["effective"] == effective_of(request), "effective request")
    check(vector["request_digest"] == jcs_hex(vector["effective"]), "request digest")
    verify_key(vector["key"])
    verify_receipt(vector, verify_output(vector))


def holds(name: str, content: bytes) -> bool:
    try:
        verify(name, content)
    except (Refused, InvalidSignature, ValueError, KeyError, TypeError, AttributeError, OverflowError):
        return False
    return True


@pytest.mark.parametrize("name", NAMES)
def test_a_vector_holds(name: str) -> None:
    verify(name, (FOLDER / f"{name}.json").read_bytes())


def span_of(content: bytes, member: str) -> range:
    """Where the hex of the last member of that name stands."""
    start = content.rindex(f'"{member}": "'.encode()) + len(member) + 5
    return range(start, content.index(b'"', start))


@pytest.mark.parametrize("name", NAMES)
def test_one_flipped_byte_anywhere_in_signature_or_digests_is_found(name: str) -> None:
    content = (FOLDER / f"{name}.json").read_bytes()
    for member in ("signature", "request_digest", "output_digest", "identity"):
        span = span_of(content, member)
        assert len(span) in (64, 128)
        for at in span:
            for flip in (0x01, 0x02, 0x20):
                changed = content[:at] + bytes([content[at] ^ flip]) + content[at + 1 :]
                assert not holds(name, changed), f"{member}, byte {at}, flip {flip:#x}"


@pytest.mark.parametrize("name", NAMES)
def test_one_flipped_bit_elsewhere_is_found(name: str) -> None:
    content = (FOLDER / f"{name}.json").read_bytes()
    # The closing newline may become other whitespace; nothing else may change.
    places = [(at, bit) for at in range(len(content) - 1) for bit in range(8)]
    for at, bit in random.Random(name).sample(places, 600):  # noqa: S311
        changed = content[:at] + bytes([content[at] ^ (1 << bit)]) + content[at + 1 :]
        assert not holds(name, changed), f"byte {at}, bit {bit}"


def test_a_vector_of_another_key_is_refused() -> None:
    vector = json.loads((FOLDER / "completion.json").read_bytes())
    other = Ed25519PrivateKey.from_private_bytes(bytes(32))
    public = other.public_key().public_bytes_raw()
    vector["key"] = {
        "secret_hex": bytes(32).hex(),
        "public_hex": public.hex(),
        "key_id": sha256(public).hexdigest()[:16],
    }
    assert not holds("completion", json.dumps(vector).encode())


def test_both_sides_agree_on_the_canonical_form() -> None:
    forms = json.loads((FOLDER / "jcs.json").read_bytes())
    assert len(forms) >= 5
    for form in forms:
        assert rfc8785.dumps(form["value"]).decode() == form["canonical"]
