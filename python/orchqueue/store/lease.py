"""The right to be the one daemon of a store (ORCH-4052).

Two layers. The *lease* is a lock that the operating system takes back when its holder dies, so it needs no
renewal and no timeout. The *fence* is a number in the store that grows with every owner; each owner's write
checks it in its own transaction, so that a process that lost its lease without noticing writes nothing.

The lease is a locked file beside the journal, and this module imports nothing heavy: a daemon takes it before
it opens the journal, long before the store. PostgreSQL adds a lock on the server, for daemons on other hosts.
"""

from __future__ import annotations

import datetime
import fcntl
import json
import os
import socket
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Protocol

from orchqueue.store.errors import StoreOwned
from orchqueue.store.files import StoreFiles

# A short-lived holder (a migration by the command line) is waited out; another daemon is not.
_PATIENCE_S = 0.3
_RETRY_S = 0.02


def wall_ms() -> int:
    """Milliseconds since the Unix epoch; the default where a clock may be given."""
    return time.time_ns() // 1_000_000


@dataclass(frozen=True, slots=True)
class Holder:
    """Who has the lease, as told to whoever comes second."""

    pid: int
    host: str
    started_ms: int

    @classmethod
    def this_process(cls, now_ms: int) -> Holder:
        return cls(os.getpid(), socket.gethostname(), now_ms)

    @classmethod
    def from_json(cls, text: str) -> Holder | None:
        """None where the holder has not written its name yet."""
        try:
            data = json.loads(text)
            return cls(int(data["pid"]), str(data["host"]), int(data["started_ms"]))
        except (ValueError, KeyError, TypeError):
            return None

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    def __str__(self) -> str:
        since = datetime.datetime.fromtimestamp(self.started_ms / 1000, datetime.UTC)
        return f"process {self.pid} on `{self.host}`, since {since:%Y-%m-%d %H:%M:%S} UTC"


class Lease(Protocol):
    """Held until `release`, or until the process ends, however it ends."""

    def release(self) -> None: ...


class FileLease:
    """A locked file. It stays when the lock goes: removing it would let two processes lock two files."""

    def __init__(self, fd: int, holder: Holder) -> None:
        self._fd: int | None = fd
        self.holder = holder

    @classmethod
    def take(
        cls,
        files: StoreFiles,
        now_ms: Callable[[], int] = wall_ms,
        sleep: Callable[[float], None] = time.sleep,
    ) -> FileLease:
        """Locks the owner file of the store, or raises `StoreOwned` with who has it locked."""
        files.owner.parent.mkdir(parents=True, exist_ok=True)
        # Not inherited by the replicas that a daemon starts: the lock must end with the daemon.
        fd = os.open(files.owner, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        waited = 0.0
        while not _locked(fd):
            if waited >= _PATIENCE_S:
                other = Holder.from_json(os.pread(fd, 4096, 0).decode(errors="replace"))
                os.close(fd)
                raise StoreOwned(str(files.database or files.owner), str(other or "another process"))
            sleep(_RETRY_S)
            waited += _RETRY_S
        holder = Holder.this_process(now_ms())
        os.ftruncate(fd, 0)
        os.pwrite(fd, holder.to_json().encode(), 0)
        return cls(fd, holder)

    def release(self) -> None:
        """Gives the lease back; may be called twice."""
        if self._fd is not None:
            os.ftruncate(self._fd, 0)
            os.close(self._fd)
            self._fd = None


def _locked(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
