"""The composition root: what a daemon refuses at its start, how it stops, that nothing of it is global."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from orchqueue import Client, Token
from orchqueue.config import Config, load
from orchqueue.daemon import Daemon, DaemonFailed, run
from orchqueue.keys import KeyRing
from orchqueue.store import Store
from orchqueue.store.errors import StoreOwned
from orchqueue.testing import LiveDaemon


def config(folder: Path, **env: str) -> Config:
    url = f"sqlite:///{folder}/oq.db"
    return load(None, {"ORCHQUEUE_STORE__URL": url, "ORCHQUEUE_SERVER__PORT": "0", **env})


@contextmanager
def served(config: Config) -> Iterator[str]:
    """A daemon in this process, on a thread of its own."""
    address: list[str] = []
    listening = threading.Event()
    ending: list[Any] = []

    async def serve(daemon: Daemon) -> None:
        ending.append((asyncio.get_running_loop(), daemon))
        address.append(daemon.url)
        listening.set()
        await daemon.serve()

    def live() -> None:
        with Daemon.opened(config) as daemon:
            asyncio.run(serve(daemon))

    thread = threading.Thread(target=live)
    thread.start()
    try:
        assert listening.wait(30)
        yield address[0]
    finally:
        loop, daemon = ending[0]
        loop.call_soon_threadsafe(daemon.stop)
        thread.join(30)
        assert not thread.is_alive()


def test_two_daemons_run_in_one_process(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with served(config(tmp_path / "a")) as one, served(config(tmp_path / "b")) as other:
        assert one != other
        for url in (one, other):
            with Client(url) as client:
                assert client.run("Say hello.", max_tokens=8, seed=1)["state"] == "finished"


# req: ORCH-4052
def test_second_daemon_on_a_store_is_refused_and_the_first_goes_on(tmp_path: Path) -> None:
    with served(config(tmp_path)) as url:
        with pytest.raises(StoreOwned, match="is owned by process"), Daemon.opened(config(tmp_path)):
            pytest.fail("it was opened")
        with Client(url) as client:
            assert client.run("Say hello.", max_tokens=4)["state"] == "finished"


# req: ORCH-4041
def test_open_address_without_a_key_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(config(tmp_path, ORCHQUEUE_SERVER__HOST="0.0.0.0")) == 1  # noqa: S104
    told = capsys.readouterr().err
    assert "error: `server.host`: 0.0.0.0 is open to other hosts, and no API key is stored" in told
    assert "hint: `orchqueue key create`" in told


def test_open_address_with_a_key_is_served(tmp_path: Path) -> None:
    with Store.open(f"sqlite:///{tmp_path}/oq.db") as store:
        key = KeyRing(store).create("acme", ["operator"]).text
    with served(config(tmp_path, ORCHQUEUE_SERVER__HOST="0.0.0.0")) as url:  # noqa: S104
        with Client(url.replace("0.0.0.0", "127.0.0.1"), key) as client:  # noqa: S104
            assert client.run("Say hello.", max_tokens=4)["state"] == "finished"


def test_port_in_use_is_told_and_the_store_is_free_again(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with pytest.raises(DaemonFailed, match=rf"cannot listen on `127.0.0.1:{port}`"):
            with Daemon.opened(config(tmp_path, ORCHQUEUE_SERVER__PORT=port)):
                pytest.fail("it was opened")
    with Daemon.opened(config(tmp_path)) as daemon:
        assert daemon.url.startswith("http://127.0.0.1:")


@pytest.fixture
def slow(slow_model: Path) -> Iterator[LiveDaemon]:
    pool = {"id": "slow", "engine": "llamacpp", "model": str(slow_model), "ctx": 1024}
    with LiveDaemon({"pools": [pool]}) as daemon:
        yield daemon


# req: ORCH-4053, ORCH-4060
def test_stop_lets_a_running_task_finish_and_leaves_no_replica(slow: LiveDaemon) -> None:
    (replica,) = slow.replica_pids()
    with slow.client() as client:
        stream = client.stream("Tell me.", max_tokens=40)
        seen = 0
        code: list[int] = []
        stopper = threading.Thread(target=lambda: code.append(slow.stop()))
        for event in stream:
            seen += isinstance(event, Token)
            if seen == 3 and not stopper.ident:
                stopper.start()
        stopper.join(30)
    assert code == [0]
    assert seen > 20
    assert not _runs(replica)


def test_second_signal_shortens_the_stop(slow: LiveDaemon) -> None:
    (replica,) = slow.replica_pids()
    pid = slow.pid
    with slow.client() as client:
        stream = client.stream("Tell me everything.", max_tokens=900, determinism="strict")
        next(event for event in stream if isinstance(event, Token))
        os.kill(pid, signal.SIGTERM)
        started = time.monotonic()
        os.kill(pid, signal.SIGTERM)
        assert slow.stop() == 0
    assert time.monotonic() - started < 10
    assert not _runs(replica)


# req: ORCH-3027
def test_log_is_json_and_carries_no_prompt(slow: LiveDaemon) -> None:
    with slow.client() as client:
        client.run("my secret diary", max_tokens=4)
    slow.stop()
    lines = [json.loads(line) for line in slow.log_path.read_text().splitlines()]
    assert {"listening", "replica ready", "stopped"} <= {line.get("message") for line in lines}
    assert "diary" not in slow.log_path.read_text()


def test_files_are_their_owner_s_alone(tmp_path: Path) -> None:
    program = "import sys; from orchqueue.cli.main import main; sys.exit(main(['serve']))"
    env = {**os.environ, "ORCHQUEUE_STORE__URL": f"sqlite:///{tmp_path}/oq.db", "ORCHQUEUE_SERVER__PORT": "0"}
    with subprocess.Popen(
        [sys.executable, "-c", program], env=env, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("listening: ")
        process.terminate()
        assert process.wait(30) == 0
    open_to_others = [path.name for path in tmp_path.rglob("*") if path.stat().st_mode & 0o077]
    assert open_to_others == []


def _runs(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"
