"""What the contract tests share: the generators of ci/, the contract documents and one running daemon."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from orchqueue.testing import LiveDaemon

ROOT = Path(__file__).resolve().parents[2]
# The tools of ci/ are scripts, not a package: they are imported the way they import each other.
sys.path.insert(0, str(ROOT / "ci"))
# Pact reports its use to its makers unless told not to.
os.environ["PACT_DO_NOT_TRACK"] = "true"

#: A class whose queue a test can fill, beside the two that a daemon has anyway.
TIGHT = "tight"

CONFIG: dict[str, Any] = {
    "classes": [
        {"name": "interactive", "weight": 4, "capacity": 256, "full_policy": "reject"},
        {"name": "batch", "weight": 1, "capacity": 4096, "full_policy": "drop-lru", "max_wait_ms": 30000},
        {"name": TIGHT, "weight": 1, "capacity": 1, "full_policy": "reject"},
    ],
    "pools": [{"id": "tiny", "engine": "llamacpp"}],
}


@pytest.fixture(scope="session")
def daemon() -> Iterator[LiveDaemon]:
    """A whole daemon with the embedded replica; every test of this folder talks to the same one."""
    with LiveDaemon(CONFIG) as running:
        yield running


@pytest.fixture(scope="session")
def http(daemon: LiveDaemon) -> Iterator[httpx.Client]:
    """Plain HTTP to the daemon: what is checked here is the wire, not the client."""
    with httpx.Client(base_url=daemon.url, timeout=30, trust_env=False) as client:
        yield client
