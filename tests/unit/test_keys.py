"""API keys: shown once, stored as HMAC, revoked, and noticed by a running daemon (ORCH-4040)."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from orchqueue import _core
from orchqueue.keys import KeyParamsError, KeyRing, KeyWatch, hash_secret, keys_command, pepper_hex
from orchqueue.store import LastKey, Store, UnknownKey


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(f"sqlite:///{tmp_path}/tasks.db") as opened:
        yield opened


@pytest.fixture
def ring(store: Store) -> KeyRing:
    return KeyRing(store, now_ms=lambda: 77)


def test_a_key_has_the_form_that_the_daemon_reads(ring: KeyRing) -> None:
    created = ring.create("acme", ["viewer", "admin"])
    assert re.fullmatch(r"oq_[0-9a-f]{12}_[A-Za-z0-9_-]{43}", created.text)
    assert created.text.split("_")[1] == created.key.key_id
    assert created.key.roles == ("admin", "viewer")


# req: ORCH-4040
def test_the_secret_is_stored_nowhere_and_printed_by_no_accident(
    ring: KeyRing, store: Store, tmp_path: Path
) -> None:
    created = ring.create("acme", ["admin"])
    secret = created.text.split("_", 2)[2]
    store.close()
    for path in tmp_path.rglob("*"):
        assert path.is_dir() or secret.encode() not in path.read_bytes(), path
    assert secret not in repr(created)


def test_what_the_daemon_is_told_verifies_the_key(ring: KeyRing, store: Store) -> None:
    created = ring.create("acme", ["operator"])
    command = keys_command(store)
    assert command["op"] == "keys_set"
    secret = created.text.split("_", 2)[2]
    expected = hmac.new(bytes.fromhex(command["pepper_hex"]), secret.encode(), hashlib.sha256).hexdigest()
    assert command["keys"] == [
        {"key_id": created.key.key_id, "hmac_hex": expected, "tenant": "acme", "roles": ["operator"]}
    ]


def test_the_hash_is_that_of_a_known_vector() -> None:
    # RFC 4231, test case 2.
    digest = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    assert hash_secret(b"Jefe".hex(), "what do ya want for nothing?") == digest


def test_the_daemon_computes_the_same_hash() -> None:
    for secret in ("s3cret", "a_b-c" * 9):
        assert _core.hash_api_key("00ff" * 16, secret) == hash_secret("00ff" * 16, secret)


def test_a_revoked_key_stays_in_the_list_and_leaves_the_command(ring: KeyRing, store: Store) -> None:
    first, second = ring.create("acme", ["admin"]), ring.create("acme", ["viewer"])
    ring.revoke(first.key.key_id)
    assert [key["key_id"] for key in keys_command(store)["keys"]] == [second.key.key_id]
    assert {key.key_id: key.revoked_ms for key in ring.list()} == {
        first.key.key_id: 77,
        second.key.key_id: None,
    }


def test_the_last_key_is_not_revoked_by_accident(ring: KeyRing, store: Store) -> None:
    only = ring.create("acme", ["admin"])
    with pytest.raises(LastKey, match="`--reopen`"):
        ring.revoke(only.key.key_id)
    assert len(keys_command(store)["keys"]) == 1
    ring.revoke(only.key.key_id, reopen=True)
    assert keys_command(store)["keys"] == []


def test_an_unknown_key_cannot_be_revoked_nor_a_key_twice(ring: KeyRing) -> None:
    first, _second = ring.create("a", ["admin"]), ring.create("b", ["admin"])
    with pytest.raises(UnknownKey, match="`feedfeedfeed`"):
        ring.revoke("feedfeedfeed")
    ring.revoke(first.key.key_id)
    with pytest.raises(UnknownKey, match="orchqueue key list"):
        ring.revoke(first.key.key_id)


@pytest.mark.parametrize(
    ("tenant", "roles", "named"),
    [
        ("", ["admin"], "`tenant`"),
        ("a b", ["admin"], "`tenant`"),
        ("x" * 65, ["admin"], "`tenant`"),
        ("acme\n", ["admin"], "`tenant`"),
        ("acme", [], "at least one role"),
        ("acme", ["admin", "root"], "unknown role: `root`"),
    ],
)
def test_a_key_that_cannot_be_is_refused_by_name(
    ring: KeyRing, tenant: str, roles: list[str], named: str
) -> None:
    with pytest.raises(KeyParamsError, match=re.escape(named)):
        ring.create(tenant, roles)
    assert ring.list() == []


def test_the_pepper_is_made_once_and_readable_by_its_owner_only(store: Store) -> None:
    made = pepper_hex(store.files)
    assert len(bytes.fromhex(made)) == 32
    assert pepper_hex(store.files) == made
    assert stat.S_IMODE(store.files.keys.stat().st_mode) == 0o700
    assert stat.S_IMODE((store.files.keys / "pepper").stat().st_mode) == 0o600


def test_a_directory_that_others_could_read_is_closed(store: Store) -> None:
    store.files.keys.mkdir(mode=0o755)
    store.files.keys.chmod(0o755)
    pepper_hex(store.files)
    assert stat.S_IMODE(store.files.keys.stat().st_mode) == 0o700


def test_the_daemon_is_told_at_first_and_then_of_changes_only(store: Store, ring: KeyRing) -> None:
    told: list[dict[str, Any]] = []
    watch = KeyWatch(store, told.append)
    assert watch.look() and told[0]["keys"] == []
    assert not watch.look()
    with Store.open(f"sqlite:///{store.files.database}", owner=False) as other_process:
        created = KeyRing(other_process).create("acme", ["admin"])
    assert watch.look()
    assert [key["key_id"] for key in told[-1]["keys"]] == [created.key.key_id]
    ring.revoke(created.key.key_id, reopen=True)
    assert watch.look() and told[-1]["keys"] == []
    assert len(told) == 3


def test_a_command_that_the_daemon_refused_is_given_again(store: Store) -> None:
    def refuse(_: dict[str, Any]) -> None:
        raise ValueError("not now")

    watch = KeyWatch(store, refuse)
    for _ in range(2):
        with pytest.raises(ValueError, match="not now"):
            watch.look()


async def test_the_watch_goes_on_after_a_failure_and_ends_when_told(
    store: Store, ring: KeyRing, caplog: pytest.LogCaptureFixture
) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    looks = 0

    def apply(command: dict[str, Any]) -> None:
        nonlocal looks
        looks += 1
        if looks == 1:
            raise OSError("disk")
        loop.call_soon_threadsafe(stop.set)

    await asyncio.wait_for(KeyWatch(store, apply).run(stop, interval_s=0.001), 10)
    assert looks == 2
    assert [record.message for record in caplog.records] == ["the API keys could not be read"]
