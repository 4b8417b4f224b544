"""CPU time and memory of processes and cores, read from /proc, and processes that end when asked."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_STOP_S = 10.0
#: Below this share of a core a process is at rest.
_REST = 0.05
_REST_LIMIT_S = 15.0


def pinned(core: int, command: Sequence[str]) -> list[str]:
    return ["taskset", "--cpu-list", str(core), *command]


def tree(pid: int) -> list[int]:
    """A process and all that descend from it."""
    found = [pid]
    for one in found:
        for children in Path(f"/proc/{one}/task").glob("*/children"):
            try:
                found += [int(child) for child in children.read_text().split()]
            except OSError:
                continue  # it ended while it was listed
    return found


def cpu_s(pid: int) -> float:
    """User and system time of a process and its descendants."""
    total = 0
    for one in tree(pid):
        fields = _stat(f"/proc/{one}/stat")
        total += sum(int(value) for value in fields[11:13])
    return total / _TICKS


def cpu_by_thread_s(pid: int) -> dict[str, float]:
    """The same, by the name of the thread."""
    found: dict[str, float] = defaultdict(float)
    for one in tree(pid):
        for task in Path(f"/proc/{one}/task").iterdir():
            fields = _stat(f"{task}/stat")
            try:
                name = (task / "comm").read_text().strip()
            except OSError:
                continue
            found[name] += sum(int(value) for value in fields[11:13]) / _TICKS
    return dict(found)


def _stat(path: str) -> list[str]:
    """The fields after the name; zeros for a process that is gone."""
    try:
        return Path(path).read_text().rpartition(")")[2].split()
    except OSError:
        return ["0"] * 20


def memory_mib(pid: int) -> float:
    """Proportional set size of a process and its descendants."""
    total = 0
    for one in tree(pid):
        try:
            lines = Path(f"/proc/{one}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024


def core_busy_s(core: int) -> float:
    """Time in which a core did anything, for whomever."""
    for line in Path("/proc/stat").read_text().splitlines():
        name, *fields = line.split()
        if name == f"cpu{core}":
            user, nice, system, _idle, _wait, irq, softirq = (int(value) for value in fields[:7])
            return (user + nice + system + irq + softirq) / _TICKS
    raise LookupError(f"no core {core}")


def wait_for_rest(pid: int) -> None:
    """Waits until a process has done what a load left it to do: that belongs to the load's cost."""
    until = time.monotonic() + _REST_LIMIT_S
    while time.monotonic() < until:
        before = cpu_s(pid)
        time.sleep(0.4)
        if (cpu_s(pid) - before) / 0.4 < _REST:
            return


def stop(process: subprocess.Popen[bytes]) -> None:
    """Ends a process and what it started: first asked, then killed."""
    members = tree(process.pid)
    process.terminate()
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for pid in members[1:]:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
