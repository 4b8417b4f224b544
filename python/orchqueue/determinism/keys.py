"""The keys that sign receipts (ORCH-4017). The newest signs; older ones stay, to verify what they signed.

One file per key in the store's private directory. A key is never changed: which one is active follows from
when they were made. The daemon reads them at its start.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchqueue.store.files import PrivateDirectory
from orchqueue.store.lease import wall_ms

Generate = Callable[[], tuple[str, str, str]]
"""Makes an Ed25519 key: key id, secret (hexadecimal), public key (hexadecimal)."""

_PREFIX, _SUFFIX = "receipt-", ".json"


class ReceiptKeyUnreadable(Exception):
    """A key file is damaged; without it some receipts cannot be verified, so it is not skipped."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"the receipt key `{path}` cannot be read\nhint: restore it from a backup, or move it away"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiptKey:
    """One Ed25519 key."""

    key_id: str
    secret_hex: str = field(repr=False)
    public_hex: str
    created_ms: int
    active: bool = False
    """Signs new receipts; exactly one key does."""

    def public(self) -> dict[str, Any]:
        """The entry of `GET /v1/receipt-keys`."""
        return {
            "key_id": self.key_id,
            "algorithm": "Ed25519",
            "public_hex": self.public_hex,
            "active": self.active,
        }

    def runtime(self) -> dict[str, Any]:
        """The entry of the daemon's runtime document. Holds the secret."""
        return {"key_id": self.key_id, "secret_hex": self.secret_hex, "active": self.active}


class ReceiptKeys:
    """The keys of one store; read anew at each use, since the command line may rotate them meanwhile."""

    def __init__(self, directory: PrivateDirectory, generate: Generate, now_ms: Callable[[], int]) -> None:
        self._directory = directory
        self._generate = generate
        self._now_ms = now_ms

    @classmethod
    def open(
        cls, path: Path, *, generate: Generate | None = None, now_ms: Callable[[], int] = wall_ms
    ) -> ReceiptKeys:
        """The keys in this directory (`StoreFiles.keys`); the first one is made if there is none."""
        keys = cls(PrivateDirectory(path), generate or _generate, now_ms)
        with keys._directory.locked():
            if not keys.list():
                keys._create(now_ms())
        return keys

    def list(self) -> list[ReceiptKey]:
        """Every key, the active one first."""
        names = [n for n in self._directory.names() if n.startswith(_PREFIX) and n.endswith(_SUFFIX)]
        documents = sorted((self._read(name) for name in names), key=_age, reverse=True)
        return [ReceiptKey(**document, active=place == 0) for place, document in enumerate(documents)]

    def active(self) -> ReceiptKey:
        """The key that signs."""
        return self.list()[0]

    def rotate(self) -> ReceiptKey:
        """Makes a new active key. A running daemon goes on with the old one until it is started again."""
        with self._directory.locked():
            # Later than every other even where the clock went back: the newest key is the active one.
            newest = max((key.created_ms for key in self.list()), default=0)
            self._create(max(self._now_ms(), newest + 1))
        return self.active()

    def runtime(self) -> Sequence[dict[str, Any]]:
        """`receipt_keys` of the daemon's runtime document. Holds secrets: hand it over, never print it."""
        return [key.runtime() for key in self.list()]

    def export(self) -> dict[str, Any]:
        """The public keys, in the form of `GET /v1/receipt-keys`."""
        return {"keys": [key.public() for key in self.list()]}

    def _create(self, created_ms: int) -> None:
        key_id, secret_hex, public_hex = self._generate()
        document = {
            "key_id": key_id,
            "secret_hex": secret_hex,
            "public_hex": public_hex,
            "created_ms": created_ms,
        }
        self._directory.write(f"{_PREFIX}{key_id}{_SUFFIX}", json.dumps(document, indent=2).encode() + b"\n")

    def _read(self, name: str) -> dict[str, Any]:
        try:
            data = json.loads(self._directory.read(name) or b"")
            return {
                "key_id": str(data["key_id"]),
                "secret_hex": str(data["secret_hex"]),
                "public_hex": str(data["public_hex"]),
                "created_ms": int(data["created_ms"]),
            }
        except (ValueError, KeyError, TypeError) as error:
            raise ReceiptKeyUnreadable(self._directory.path / name) from error


def _age(document: dict[str, Any]) -> tuple[int, str]:
    return document["created_ms"], document["key_id"]


def _generate() -> tuple[str, str, str]:
    from orchqueue import _core

    made: tuple[str, str, str] = _core.generate_receipt_key()
    return made
