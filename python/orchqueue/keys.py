"""API keys (ORCH-4040): shown once, stored as HMAC-SHA256 under a pepper that lies outside the database.

A key reads `oq_<key_id>_<secret>`. The daemon verifies keys in Rust on every request; this module makes and
revokes them and tells the daemon what there is (`keys_command`, `KeyWatch`). The command line uses the same
ring on the same store, and a running daemon notices within a second.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import logging
import re
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from orchqueue.store.files import PrivateDirectory, StoreFiles
from orchqueue.store.lease import wall_ms
from orchqueue.store.rows import ApiKey

_log = logging.getLogger(__name__)

ROLES = ("admin", "operator", "approver", "viewer")
"""Every role; all but `viewer` may submit tasks."""

_PEPPER = "pepper"
_PEPPER_BYTES = 32
_TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_MAX_LABEL = 200


class KeyParamsError(ValueError):
    """A key cannot be made like this; the message names what to change."""


class KeyStore(Protocol):
    """What the ring needs of `orchqueue.store.Store`."""

    @property
    def files(self) -> StoreFiles: ...
    def api_keys(self) -> list[ApiKey]: ...
    def add_api_key(self, key: ApiKey) -> None: ...
    def revoke_api_key(self, key_id: str, now_ms: int, *, reopen: bool = False) -> None: ...
    def keys_revision(self) -> int: ...


@dataclass(frozen=True, slots=True)
class CreatedKey:
    """A key in the one moment in which its secret is known."""

    key: ApiKey
    text: str
    """What the client sends: `Authorization: Bearer <text>`."""

    def __repr__(self) -> str:
        return f"CreatedKey(key_id={self.key.key_id!r})"


class KeyRing:
    """The API keys of one store."""

    def __init__(
        self,
        store: KeyStore,
        *,
        now_ms: Callable[[], int] = wall_ms,
        random_bytes: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self._store = store
        self._now_ms = now_ms
        self._random = random_bytes

    def create(self, tenant: str, roles: Iterable[str], label: str = "") -> CreatedKey:
        """Makes a key for the tenant. Its secret is in the answer and nowhere else."""
        key_id = self._random(6).hex()
        secret = _base64url(self._random(32))
        key = ApiKey(
            key_id=key_id,
            hmac_hex=hash_secret(pepper_hex(self._store.files, self._random), secret),
            tenant=_checked_tenant(tenant),
            roles=_checked_roles(roles),
            label=label[:_MAX_LABEL],
            created_ms=self._now_ms(),
        )
        self._store.add_api_key(key)
        return CreatedKey(key, f"oq_{key_id}_{secret}")

    def list(self) -> list[ApiKey]:
        """Every key, revoked ones too, oldest first."""
        return self._store.api_keys()

    def revoke(self, key_id: str, *, reopen: bool = False) -> None:
        """Ends a key; the last one only with `reopen`, since a daemon without keys is open on loopback."""
        self._store.revoke_api_key(key_id, self._now_ms(), reopen=reopen)


def keys_command(store: KeyStore) -> dict[str, Any]:
    """The `keys_set` command that tells the daemon every key that is valid now."""
    return {
        "op": "keys_set",
        "pepper_hex": pepper_hex(store.files),
        "keys": [
            {"key_id": key.key_id, "hmac_hex": key.hmac_hex, "tenant": key.tenant, "roles": list(key.roles)}
            for key in store.api_keys()
            if key.revoked_ms is None
        ],
    }


def pepper_hex(files: StoreFiles, random_bytes: Callable[[int], bytes] = secrets.token_bytes) -> str:
    """The pepper of the store, made on first use. Losing the file makes every key invalid."""
    directory = PrivateDirectory(files.keys)
    with directory.locked():
        if (found := directory.read(_PEPPER)) is not None:
            return found.decode().strip()
        pepper = random_bytes(_PEPPER_BYTES).hex()
        directory.write(_PEPPER, pepper.encode() + b"\n")
        return pepper


def hash_secret(pepper: str, secret: str) -> str:
    """HMAC-SHA256 of a key's secret, in hexadecimal, as the daemon computes it."""
    return hmac.new(bytes.fromhex(pepper), secret.encode(), hashlib.sha256).hexdigest()


class KeyWatch:
    """Tells the daemon the keys at start and again whenever somebody changed them."""

    def __init__(self, store: KeyStore, apply: Callable[[dict[str, Any]], object]) -> None:
        self._store = store
        self._apply = apply
        self._revision: int | None = None

    def look(self) -> bool:
        """Hands the keys over if they changed since the last look; returns whether they did."""
        revision = self._store.keys_revision()
        if revision == self._revision:
            return False
        self._apply(keys_command(self._store))
        self._revision = revision
        return True

    async def run(self, stop: asyncio.Event, interval_s: float = 1.0) -> None:
        """Looks until `stop`. After a look that failed, the keys that are known stay valid."""
        while not stop.is_set():
            try:
                await asyncio.to_thread(self.look)
            except Exception as error:  # The database or the disk, which may come back.
                _log.error(
                    "the API keys could not be read", extra={"cause": f"{type(error).__name__}: {error}"}
                )
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), interval_s)


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _checked_tenant(tenant: str) -> str:
    if not _TENANT.fullmatch(tenant):
        raise KeyParamsError(
            f"`tenant` cannot be: `{tenant[:80]}`\n"
            "hint: use up to 64 letters, digits, `.`, `_` and `-`, beginning with a letter or digit"
        )
    return tenant


def _checked_roles(roles: Iterable[str]) -> tuple[str, ...]:
    wanted = set(roles)
    unknown = sorted(wanted - set(ROLES))
    if unknown or not wanted:
        what = f"unknown role: `{unknown[0]}`" if unknown else "a key needs at least one role"
        raise KeyParamsError(f"{what}\nhint: the roles are {', '.join(f'`{role}`' for role in ROLES)}")
    return tuple(role for role in ROLES if role in wanted)


__all__ = [
    "ROLES",
    "CreatedKey",
    "KeyParamsError",
    "KeyRing",
    "KeyStore",
    "KeyWatch",
    "hash_secret",
    "keys_command",
    "pepper_hex",
]
