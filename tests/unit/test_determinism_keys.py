"""Receipt keys: made at the first start, rotated, old ones kept (ORCH-4017)."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from orchqueue.determinism.keys import ReceiptKeys, ReceiptKeyUnreadable


def generate() -> tuple[str, str, str]:
    """What the daemon's generator gives, made by another implementation of Ed25519."""
    key = Ed25519PrivateKey.generate()
    public = key.public_key().public_bytes_raw()
    return public[:6].hex(), key.private_bytes_raw().hex(), public.hex()


@pytest.fixture
def opened(tmp_path: Path) -> Callable[..., ReceiptKeys]:
    def open_keys(now_ms: int = 1000) -> ReceiptKeys:
        return ReceiptKeys.open(tmp_path / "tasks.keys", generate=generate, now_ms=lambda: now_ms)

    return open_keys


def test_the_first_start_makes_a_key_and_the_second_finds_it(opened: Callable[..., ReceiptKeys]) -> None:
    first = opened().active()
    assert opened().list() == [first]
    assert first.active


def test_the_newest_key_signs_and_the_old_one_stays(opened: Callable[..., ReceiptKeys]) -> None:
    keys = opened()
    old = keys.active()
    new = opened(now_ms=2000).rotate()
    assert new.key_id != old.key_id
    assert [(key.key_id, key.active) for key in keys.list()] == [(new.key_id, True), (old.key_id, False)]


def test_rotation_works_while_the_clock_runs_backwards(opened: Callable[..., ReceiptKeys]) -> None:
    opened(now_ms=5000)
    new = opened(now_ms=10).rotate()
    assert opened().active() == new
    assert new.created_ms == 5001


def test_what_the_daemon_gets_signs_what_the_export_verifies(opened: Callable[..., ReceiptKeys]) -> None:
    keys = opened()
    keys.rotate()
    public = {key["key_id"]: key["public_hex"] for key in keys.export()["keys"]}
    for key in keys.runtime():
        signature = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(key["secret_hex"])).sign(b"receipt")
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(public[key["key_id"]])).verify(signature, b"receipt")
    assert [key["active"] for key in keys.runtime()] == [True, False]


def test_the_daemons_generator_makes_keys_that_another_implementation_knows(tmp_path: Path) -> None:
    key = ReceiptKeys.open(tmp_path / "tasks.keys").active()
    private = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(key.secret_hex))
    assert private.public_key().public_bytes_raw().hex() == key.public_hex


def test_the_export_and_the_representation_hold_no_secret(opened: Callable[..., ReceiptKeys]) -> None:
    keys = opened()
    secret = keys.active().secret_hex
    assert secret not in json.dumps(keys.export())
    assert secret not in repr(keys.list())
    assert set(keys.export()["keys"][0]) == {"key_id", "algorithm", "public_hex", "active"}


def test_key_files_are_readable_by_their_owner_only(
    opened: Callable[..., ReceiptKeys], tmp_path: Path
) -> None:
    opened()
    (path,) = (tmp_path / "tasks.keys").iterdir()
    assert path.name.startswith("receipt-") and path.suffix == ".json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_file_that_a_crash_left_half_written_is_no_key(
    opened: Callable[..., ReceiptKeys], tmp_path: Path
) -> None:
    keys = opened()
    (tmp_path / "tasks.keys" / ".receipt-abc.json.1f2e").write_text("{")
    (tmp_path / "tasks.keys" / "pepper").write_text("00")
    assert len(keys.list()) == 1


@pytest.mark.parametrize("content", ["", "{", "[]", '{"key_id": "x"}'])
def test_a_damaged_key_is_named_and_not_replaced(
    opened: Callable[..., ReceiptKeys], tmp_path: Path, content: str
) -> None:
    opened()
    (path,) = (tmp_path / "tasks.keys").iterdir()
    path.write_text(content)
    with pytest.raises(ReceiptKeyUnreadable, match=path.name):
        opened()
    assert path.read_text() == content
