"""A replica is killed while it decodes: its stream ends with one typed error, and the pool recovers."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from orchqueue import Error, Retry, Token
from orchqueue.errors import WorkerReset
from orchqueue.testing import LiveDaemon


@pytest.fixture
def live(slow_model: Path) -> Iterator[LiveDaemon]:
    pool = {
        "id": "slow",
        "engine": "llamacpp",
        "model": str(slow_model),
        "ctx": 1024,
        "determinism": "best_effort",
        "timeouts": {"idle_ms": 30_000},
        "replicas": [{"spawn": "embedded"}],
    }
    with LiveDaemon({"pools": [pool]}) as daemon:
        yield daemon


# req: ORCH-4005, ORCH-4004
def test_a_replica_killed_mid_stream_gives_exactly_one_typed_error(live: LiveDaemon) -> None:
    (victim,) = live.replica_pids()
    with live.client(retry=Retry(attempts=1)) as client:
        stream = client.stream("Tell me everything.", max_tokens=900)
        tokens = 0
        with pytest.raises(WorkerReset) as caught:
            for event in stream:
                if isinstance(event, Token):
                    tokens += 1
                if tokens == 3:
                    os.kill(victim, signal.SIGKILL)
        assert tokens >= 3
        assert caught.value.retriable
        assert isinstance(stream.terminal, Error)
        task = client.task(stream.task_id)
        assert task["state"] == "failed"
        assert task["error"]["code"] == "WORKER_RESET"


def test_the_stream_on_the_wire_has_one_terminal_event_and_a_clean_end(live: LiveDaemon) -> None:
    (victim,) = live.replica_pids()
    body = {"prompt": "Tell me everything.", "max_tokens": 900}
    headers = {"accept": "text/event-stream"}
    names = []
    with httpx.stream("POST", f"{live.url}/v1/tasks", json=body, headers=headers, timeout=60) as answer:
        for line in answer.iter_lines():
            if line.startswith("event: "):
                names.append(line.removeprefix("event: "))
                if names.count("token") == 3 and names[-1] == "token":
                    os.kill(victim, signal.SIGKILL)
    assert names[0] == "started"
    assert names[-1] == "error"
    assert names.count("error") + names.count("end") == 1


def test_the_pool_starts_another_replica(live: LiveDaemon) -> None:
    (victim,) = live.replica_pids()
    os.kill(victim, signal.SIGKILL)
    with live.client(retry=Retry(attempts=10)) as client:
        assert client.run("Go on.", max_tokens=4)["state"] == "finished"
    live.wait_ready()
    (successor,) = live.replica_pids()
    assert successor != victim
