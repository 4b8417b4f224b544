"""Real daemons for the whole session, and the command line as a process."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from orchqueue import Client
from orchqueue.testing import LiveDaemon

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def live() -> Iterator[LiveDaemon]:
    """A daemon with two llama.cpp replicas of the tiny model."""
    pool = {"id": "tiny", "engine": "llamacpp", "replicas": [{"spawn": "embedded", "count": 2}]}
    with LiveDaemon({"pools": [pool]}) as daemon:
        yield daemon


@pytest.fixture(scope="session")
def slow(slow_model: Path) -> Iterator[LiveDaemon]:
    """A daemon with one llama.cpp replica whose model is slow enough to be interrupted."""
    pool = {
        "id": "slow",
        "engine": "llamacpp",
        "model": str(slow_model),
        "ctx": 1024,
        "timeouts": {"idle_ms": 30_000},
        "replicas": [{"spawn": "embedded"}],
    }
    with LiveDaemon({"pools": [pool]}) as daemon:
        yield daemon


@pytest.fixture
def client(live: LiveDaemon) -> Iterator[Client]:
    with live.client() as one:
        yield one


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "orchqueue", *words]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs `orchqueue` in an empty folder."""

    def call(*words: str, url: str | None = None) -> "subprocess.CompletedProcess[str]":
        env = {**os.environ, "NO_COLOR": "1"}
        if url is not None:
            env["ORCHQUEUE_URL"] = url
        return subprocess.run(
            command(*words), capture_output=True, text=True, env=env, cwd=tmp_path, timeout=60
        )

    return call
