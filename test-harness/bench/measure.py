"""Runs one gateway through every phase and reads what it cost."""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import processes
from phases import PHASES, Phase
from targets import HERE, ROOT, Launch, Place, Target

GATEWAY_CORE = 0
LOAD_CORE = 1
ENGINES = (18_301, 18_302)
PORT = 18_310
BUILD = ROOT / "build" / "bench"
_START_S = 60.0
_WARM_UP = Phase("warm-up", streams=8, tokens=64, interval_us=0, seconds=1)

Row = dict[str, Any]


class GatewayFailed(Exception):
    """A gateway did not start or did not serve; the message ends with what it said."""


@dataclass(frozen=True)
class Running:
    """A gateway that serves, or nothing at all for the clients that go straight to an engine."""

    target: Target
    port: int
    headers: tuple[str, ...]
    pid: int | None
    folder: Path


def compile_tools() -> None:
    """The engine and the clients, built when their source is newer."""
    BUILD.mkdir(parents=True, exist_ok=True)
    for name in ("engine", "client"):
        source, program = HERE / f"{name}.c", BUILD / name
        if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
            subprocess.run(["cc", "-O2", "-std=gnu11", "-o", str(program), str(source)], check=True)


@contextmanager
def engine() -> Iterator[None]:
    """Two replicas on the core of the load."""
    command = [str(BUILD / "engine"), *map(str, ENGINES)]
    with subprocess.Popen(processes.pinned(LOAD_CORE, command)) as process:
        try:
            _wait_until_ready(f"http://127.0.0.1:{ENGINES[0]}/health", process)
            yield
        finally:
            processes.stop(process)


def measure(target: Target, number: int) -> Iterator[Row]:
    """One round of one target: a row per phase."""
    with _started(target) as running:
        _load(running, _WARM_UP)
        if running.pid is not None:
            processes.wait_for_rest(running.pid)
        for phase in PHASES:
            yield {"target": target.name, "round": number, **_measured(running, phase)}


@contextmanager
def _started(target: Target) -> Iterator[Running]:
    with tempfile.TemporaryDirectory(prefix="run-", dir=BUILD) as name:
        folder = Path(name)
        launch = target.launch(Place(folder, PORT, ENGINES))
        if launch is None:
            yield Running(target, ENGINES[0], (), None, folder)
            return
        log = folder / "gateway.log"
        with (
            log.open("wb") as said,
            subprocess.Popen(_pinned(launch), stdout=said, stderr=said, cwd=folder) as process,
        ):
            try:
                _wait_until_ready(f"http://127.0.0.1:{PORT}{launch.ready}", process)
                running = Running(target, PORT, launch.headers, process.pid, folder)
                _wait_until_serving(running)
                yield running
            except GatewayFailed as error:
                tail = log.read_text(encoding="utf-8", errors="replace")[-2_000:]
                raise GatewayFailed(f"{target.name}: {error}\n{tail}") from error
            finally:
                processes.stop(process)


def _pinned(launch: Launch) -> list[str]:
    return processes.pinned(GATEWAY_CORE, launch.command)


def _wait_until_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + _START_S
    while time.monotonic() < until:
        if process.poll() is not None:
            raise GatewayFailed(f"ended with {process.returncode}")
        try:
            with urllib.request.urlopen(url, timeout=2):  # noqa: S310
                return
        except OSError:
            time.sleep(0.05)
    raise GatewayFailed(f"`{url}` did not answer in {_START_S:g} s")


def _wait_until_serving(running: Running) -> None:
    """Being ready is not yet having engines: until one whole stream has come through."""
    until = time.monotonic() + _START_S
    once = Phase("once", streams=1, tokens=4, interval_us=0, seconds=0.01)
    while time.monotonic() < until:
        if not _load(running, once)["failed"]:
            return
        time.sleep(0.3)
    raise GatewayFailed(f"no stream came through in {_START_S:g} s")


def _measured(running: Running, phase: Phase) -> Row:
    before = _meter(running)
    loaded = _load(running, phase)
    if running.pid is not None:
        processes.wait_for_rest(running.pid)
    after = _meter(running)
    used = {name: after[name] - before[name] for name in ("gateway", "engine", "core_0", "core_1")}
    wall = after["at"] - before["at"]
    threads = {
        name: round(value - before["threads"].get(name, 0.0), 3)
        for name, value in after["threads"].items()
        if value - before["threads"].get(name, 0.0) >= 0.02
    }
    return {
        "phase": phase.name,
        "answers": loaded["answers"],
        "tokens": loaded["tokens"],
        "seconds": loaded["seconds"],
        "failed": loaded["failed"],
        "first_token_us": loaded["first_token_us"],
        "travel_us": loaded["travel_us"],
        "cpu_s": round(used["gateway"], 3),
        "cpu_by_thread_s": threads,
        "memory_mib": after["memory"],
        # Shares of the two cores: what the load itself took of its own, and what others took of both.
        "load_share": round((used["engine"] + loaded["cpu_s"]) / loaded["seconds"], 3),
        "others_on_gateway_core": round(max(0.0, used["core_0"] - used["gateway"]) / wall, 3),
        "others_on_load_core": round(max(0.0, used["core_1"] - used["engine"] - loaded["cpu_s"]) / wall, 3),
    }


def _meter(running: Running) -> Row:
    pid = running.pid
    return {
        "at": time.monotonic(),
        "gateway": processes.cpu_s(pid) if pid else 0.0,
        "threads": processes.cpu_by_thread_s(pid) if pid else {},
        "memory": round(processes.memory_mib(pid), 1) if pid else None,
        "engine": _engine("/_use")["cpu_s"],
        "core_0": processes.core_busy_s(GATEWAY_CORE),
        "core_1": processes.core_busy_s(LOAD_CORE),
    }


def _engine(path: str) -> Row:
    with urllib.request.urlopen(f"http://127.0.0.1:{ENGINES[0]}{path}", timeout=5) as answer:
        document: Row = json.load(answer)
        return document


def _load(running: Running, phase: Phase) -> Row:
    """Runs the clients of a phase and returns what they saw."""
    _engine(f"/_set?tokens={phase.tokens}&interval_us={phase.interval_us}")
    request = running.target.request(phase)
    body = running.folder / "body.json"
    body.write_bytes(request.body)
    command = [str(BUILD / "client"), "--port", str(running.port), "--path", request.path]
    command += ["--body", str(body), "--streams", str(phase.streams), "--seconds", str(phase.seconds)]
    command += ["--tokens", str(phase.tokens), "--spread-ms", str(phase.spread_ms)]
    for header in (*running.headers, *request.headers):
        command += ["--header", header]
    if request.end is not None:
        command += ["--end", request.end]
    done = subprocess.run(processes.pinned(LOAD_CORE, command), check=True, capture_output=True, timeout=120)
    seen: Row = json.loads(done.stdout)
    return seen
