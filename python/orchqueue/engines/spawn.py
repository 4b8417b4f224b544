"""Child processes of the daemon: started in a process group of their own, never left behind.

Three things keep a replica from outliving its daemon: the pipe that the child inherits (it ends when the pipe
closes, also after kill -9), the orderly stop, and the note beside the store by which the next start finds and
removes a child that ignored the pipe.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TAIL_LINES = 40
TAIL_LINE_CHARS = 400
_READ_BYTES = 4_096


class SpawnFailed(Exception):
    """The child did not come up. `permanent`: trying again cannot help until somebody changes something."""

    def __init__(self, message: str, *, permanent: bool = False) -> None:
        super().__init__(message)
        self.permanent = permanent


@dataclass(slots=True)
class Tail:
    """The last lines of what a child said, bounded in every direction."""

    _lines: deque[str] = field(default_factory=lambda: deque(maxlen=TAIL_LINES))
    _partial: str = ""

    def feed(self, data: bytes) -> None:
        *lines, rest = (self._partial + data.decode("utf-8", "replace")).split("\n")
        self._lines.extend(line[:TAIL_LINE_CHARS] for line in lines if line.strip())
        self._partial = rest[-TAIL_LINE_CHARS:]

    def lines(self) -> list[str]:
        return [*self._lines, self._partial] if self._partial.strip() else list(self._lines)

    def last(self) -> str | None:
        lines = self.lines()
        return lines[-1].strip() if lines else None


class Child:
    """One running child process. Made by `start_child`; `stop` must be called, also after it has ended."""

    def __init__(self, process: asyncio.subprocess.Process, pipe: int, note: Path | None) -> None:
        self._process = process
        self._pipe = pipe
        self._note = note
        self._reader = asyncio.ensure_future(self._read_stderr())
        self.tail = Tail()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.returncode is None

    async def ready_line(self, timeout_s: float) -> dict[str, Any]:
        """The JSON line with which the child says where it listens."""
        stdout = self._process.stdout
        if stdout is None:
            raise SpawnFailed("the child has no standard output")
        try:
            line = await asyncio.wait_for(stdout.readline(), timeout_s)
        except TimeoutError:
            raise SpawnFailed(f"not ready after {timeout_s:g} s") from None
        except ValueError:
            raise SpawnFailed("said something else than where it listens") from None
        if not line:
            await self.ended()
            raise SpawnFailed(self.epitaph(), permanent=self._process.returncode == 3)
        try:
            said = json.loads(line)
        except ValueError:
            said = None
        if not isinstance(said, dict):
            raise SpawnFailed("said something else than where it listens")
        return said

    async def ended(self) -> int:
        """Waits for the end of the process and of its output; the exit status, negative for a signal."""
        status = await self._process.wait()
        await asyncio.wait({self._reader}, timeout=1.0)
        return status

    def epitaph(self) -> str:
        """How it ended, with its last words."""
        status = self._process.returncode
        if status is None:
            how = "is still running"
        elif status < 0:
            how = f"was killed by {_signal_name(-status)}"
        else:
            how = f"exited with status {status}"
        words = self.tail.last()
        return f"{how}: {words}" if words else how

    async def stop(self, grace_s: float) -> None:
        """Ends the whole process group: politely, then for good. Safe to call twice."""
        try:
            if self.alive:
                self._signal(signal.SIGTERM)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._process.wait(), grace_s)
        finally:
            self._signal(signal.SIGKILL)
            if self._pipe >= 0:
                os.close(self._pipe)
                self._pipe = -1
            if self._note is not None:
                self._note.unlink(missing_ok=True)
        await self._process.wait()
        self._reader.cancel()

    def kill(self) -> None:
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        # The child leads its group. Once it is reaped the number may belong to somebody else.
        if self.alive:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, number)

    async def _read_stderr(self) -> None:
        stderr = self._process.stderr
        while stderr is not None and (data := await stderr.read(_READ_BYTES)):
            self.tail.feed(data)


async def start_child(
    command: Callable[[int], list[str]], note: Path | None = None, env: Mapping[str, str] | None = None
) -> Child:
    """Starts `command(fd)`, `fd` being the pipe that the child watches; leaves `note` for the next start."""
    read_end, write_end = os.pipe()
    try:
        process = await asyncio.create_subprocess_exec(
            *command(read_end),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            pass_fds=(read_end,),
            start_new_session=True,
            env=_environment(env or {}),
        )
    except BaseException as error:
        # Also when canceled half-way: a child that was begun ends with the pipe.
        os.close(write_end)
        if isinstance(error, OSError):
            raise SpawnFailed(f"cannot be started: {error.strerror or error}") from error
        raise
    finally:
        os.close(read_end)
    child = Child(process, write_end, note)
    if note is not None:
        _write_note(note, process.pid)
    return child


def remove_stale(notes: Path) -> list[int]:
    """Kills every child that an earlier daemon of this store left behind; returns their process ids."""
    removed: list[int] = []
    for note in sorted(notes.glob("*.json")):
        pid = _noted(note)
        if pid is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)
                removed.append(pid)
        note.unlink(missing_ok=True)
    return removed


def _environment(more: Mapping[str, str]) -> dict[str, str]:
    """The daemon's environment and `more`; the child finds the package where the daemon found it."""
    root = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path, **more}


def _write_note(note: Path, pid: int) -> None:
    started = _start_time(pid)
    if started is not None:
        note.write_text(json.dumps({"pid": pid, "started": started}), encoding="utf-8")


def _noted(note: Path) -> int | None:
    """The process of a note, if it still runs and is the same one: numbers are used again."""
    try:
        said = json.loads(note.read_text(encoding="utf-8"))
        pid, started = said["pid"], said["started"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if not isinstance(pid, int) or pid <= 1:
        return None
    return pid if _start_time(pid) == started else None


def _start_time(pid: int) -> str | None:
    """When a process began, as a word that no other process on this host ever shares with the same id."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    except OSError:
        return None
    # The name in parentheses may hold spaces; the start time is field 22 of the line.
    fields = stat.rpartition(")")[2].split()
    return f"{boot}/{fields[19]}" if len(fields) > 19 else None


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
