"""The daemon is killed with -9 in the middle of its work and started again on the same store."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from orchqueue import Client, Token
from orchqueue.testing import LiveDaemon


@pytest.fixture
def live(slow_model: Path) -> Iterator[LiveDaemon]:
    pool = {
        "id": "slow",
        "engine": "llamacpp",
        "model": str(slow_model),
        "ctx": 1024,
        "timeouts": {"idle_ms": 30_000},
        "replicas": [{"spawn": "embedded", "count": 2}],
    }
    with LiveDaemon({"pools": [pool]}) as daemon:
        yield daemon


def alive(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def gone(pids: list[int], within_s: float) -> bool:
    until = time.monotonic() + within_s
    while any(alive(pid) for pid in pids):
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True


def wait_for_end(client: Client, task_id: str) -> dict[str, object]:
    stream = client.follow(task_id)
    stream.result()
    return client.task(task_id)


# req: ORCH-4050
def test_nothing_accepted_is_lost(live: LiveDaemon) -> None:
    with live.client() as client:
        done = client.run("Hello.", seed=3, max_tokens=8)
        accepted = [client.submit(f"Number {i}.", seed=i, max_tokens=60) for i in range(8)]
        stream = accepted[0].stream()
        while not isinstance(next(stream), Token):
            pass
        replicas = live.replica_pids()
        assert len(replicas) == 2
        live.kill()
    assert gone(replicas, within_s=5)

    live.start()
    live.wait_ready()
    with live.client() as client:
        again = client.task(done["task_id"])
        assert again["state"] == "finished"
        assert again["output"] == done["output"]
        ended = [wait_for_end(client, task.id) for task in accepted]
        assert {task["state"] for task in ended} == {"finished"}
        # The promise: what runs again gives what the first run would have given.
        fresh = client.run("Number 5.", seed=5, max_tokens=60)
        assert ended[5]["output"] == fresh["output"]
    assert len(live.replica_pids()) == 2


# req: ORCH-4051, ORCH-4002
def test_an_id_is_known_again_after_a_restart(live: LiveDaemon) -> None:
    with live.client() as client:
        first = client.run("Hello.", seed=3, max_tokens=8)
    live.kill()
    live.start()
    live.wait_ready()
    with live.client() as client:
        again = client.run("Hello.", seed=3, max_tokens=8, task_id=first["task_id"])
        assert again["output"] == first["output"]
        assert again["created_ms"] == first["created_ms"]
        assert client.receipt(first["task_id"])["output_digest"]


# req: ORCH-4053
def test_an_orderly_stop_leaves_no_process_and_no_task_behind(live: LiveDaemon) -> None:
    with live.client() as client:
        task = client.submit("Finish this.", seed=1, max_tokens=40)
        stream = task.stream()
        while not isinstance(next(stream), Token):
            pass
        replicas = live.replica_pids()
        assert live.stop() == 0
    assert gone(replicas, within_s=5)
    live.start()
    live.wait_ready()
    with live.client() as client:
        assert wait_for_end(client, task.id)["state"] == "finished"


# req: ORCH-4052
def test_a_second_daemon_on_the_same_store_refuses_to_start(live: LiveDaemon) -> None:
    second = subprocess.run(
        [sys.executable, "-m", "orchqueue", "serve", "--config", str(live.config_path)],
        capture_output=True,
        text=True,
        cwd=live.folder,
        timeout=60,
    )
    assert second.returncode == 1
    assert "is owned by process" in second.stderr
    assert "hint:" in second.stderr
    with live.client() as client:
        assert client.run("Still here.", max_tokens=4)["state"] == "finished"
