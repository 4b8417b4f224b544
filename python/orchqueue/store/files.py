"""The files beside a store: where they are, and how secrets are written.

A store `X.db` has `X.journal.db` (the daemon's journal), `X.owner` (who holds the store) and `X.keys/`
(secrets, readable by their owner only). This module imports nothing heavy: the daemon needs it before the
store is open.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from orchqueue.store.errors import StoreUrlError

_SQLITE = "sqlite:///"


@dataclass(frozen=True, slots=True)
class StoreFiles:
    """Paths that belong to one store. `database` is None where the tables are on a server."""

    database: Path | None
    journal: Path
    owner: Path
    keys: Path


def files_beside(url: str) -> StoreFiles:
    """The files of the store at `url`. Symbolic links are resolved: one database has one owner file."""
    if url.startswith(("postgresql://", "postgresql+")):
        return _files(None, Path("orchqueue").absolute())
    name = url.removeprefix(_SQLITE).partition("?")[0]
    if not url.startswith(_SQLITE) or name in ("", ":memory:"):
        raise StoreUrlError(
            f"`store.url` cannot be used: `{_without_password(url)}`\n"
            "hint: write `sqlite:///path/to/file.db` or `postgresql://user@host/name`"
        )
    database = Path(name).resolve()
    return _files(database, database.with_suffix("") if database.suffix == ".db" else database)


def _files(database: Path | None, stem: Path) -> StoreFiles:
    def beside(suffix: str) -> Path:
        return stem.with_name(stem.name + suffix)

    return StoreFiles(database, beside(".journal.db"), beside(".owner"), beside(".keys"))


def _without_password(url: str) -> str:
    scheme, _, rest = url.partition("://")
    credentials, at, host = rest.rpartition("@")
    return f"{scheme}://{credentials.partition(':')[0]}{at}{host}" if scheme and rest else url


class PrivateDirectory:
    """A directory of secrets: 0700, its files 0600, each file written whole or not at all."""

    def __init__(self, path: Path) -> None:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.stat().st_mode & 0o077:
            path.chmod(0o700)
        self.path = path

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other processes from creating the same secret; held for milliseconds."""
        fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def names(self) -> list[str]:
        """File names in order, without what a crash left half written."""
        return sorted(entry.name for entry in self.path.iterdir() if not entry.name.startswith("."))

    def read(self, name: str) -> bytes | None:
        """The content, or None where there is no such file."""
        try:
            return (self.path / name).read_bytes()
        except FileNotFoundError:
            return None

    def write(self, name: str, content: bytes) -> None:
        """Replaces the file atomically; it is on disk when this returns."""
        draft = self.path / f".{name}.{secrets.token_hex(4)}"
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(fd, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(self.path / name)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
        directory = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
