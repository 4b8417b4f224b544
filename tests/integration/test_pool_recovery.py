"""What becomes of a pool whose real replica hangs, dies again and again, or is given back late."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from orchqueue import Retry, Token
from orchqueue.errors import OrchqueueError
from orchqueue.testing import LiveDaemon

SLOW = {"id": "slow", "engine": "llamacpp", "ctx": 1024, "determinism": "best_effort"}


@pytest.fixture
def live(slow_model: Path) -> Iterator[LiveDaemon]:
    pool = {**SLOW, "model": str(slow_model), "timeouts": {"idle_ms": 500}}
    with LiveDaemon({"pools": [pool], "attempts": {"reclaim_ms": 300}}) as daemon:
        yield daemon


def replica(live: LiveDaemon) -> dict[str, Any]:
    with live.client() as client:
        (one,) = client.replicas()["replicas"]
    return dict(one)


def test_replica_that_hangs_is_replaced(live: LiveDaemon) -> None:
    (hung,) = live.replica_pids()
    with live.client(retry=Retry(attempts=1)) as client:
        stream = client.stream("Tell me everything.", max_tokens=900)
        with pytest.raises(OrchqueueError):
            for event in stream:
                if isinstance(event, Token):
                    os.kill(hung, signal.SIGSTOP)
        until = time.monotonic() + 40
        while live.replica_pids() in ([hung], []):
            assert time.monotonic() < until
            time.sleep(0.05)
        live.wait_ready()
        assert client.run("Go on.", max_tokens=4)["state"] == "finished"
    assert not Path(f"/proc/{hung}").exists()


# req: ORCH-4061
def test_canceled_tasks_give_their_slot_back_without_a_restart(live: LiveDaemon) -> None:
    pids = live.replica_pids()
    with live.client() as client:
        for _ in range(5):
            stream = client.stream("Tell me everything.", max_tokens=900)
            next(event for event in stream if isinstance(event, Token))
            client.cancel(stream.task_id)
        assert client.run("Go on.", max_tokens=4)["state"] == "finished"
    assert live.replica_pids() == pids
    assert replica(live)["state"] == "ready"
