"""The whole daemon as a process of its own: `orchqueue serve` with a store in a folder of its own.

For tests of what only a process can show: kill -9, restart, replica processes, exit codes.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from orchqueue.errors import OrchqueueError

if TYPE_CHECKING:
    from orchqueue.client_sync import Client
    from orchqueue.retry import Retry

START_S = 60.0
STOP_S = 30.0
_POLL_S = 0.02
_READY_PREFIX = "listening: "


class DaemonDied(OrchqueueError):
    """The daemon ended, or did not come up in time. The message ends with the last lines of its log."""


class LiveDaemon:
    """Runs `orchqueue serve`. Use it with `with`, or call `start` and `stop`.

    `config` holds sections of the configuration file; the port is a free one unless it says otherwise, and
    the store lies in `folder`, by default a temporary one. `start` after `kill` or `stop` opens the same
    store again.
    """

    def __init__(
        self,
        config: Mapping[str, Any] | None = None,
        *,
        folder: Path | None = None,
        env: Mapping[str, str] | None = None,
        own_session: bool = False,
    ) -> None:
        self._own_folder = tempfile.TemporaryDirectory(prefix="orchqueue-live-") if folder is None else None
        self.folder = Path(self._own_folder.name) if self._own_folder else Path(folder or ".")
        self.config_path = self.folder / "config.yaml"
        #: What the daemon writes to standard error: its log.
        self.log_path = self.folder / "daemon.log"
        self._write_config(config or {})
        self._env = {**_clean_environment(), **(env or {})}
        self._own_session = own_session
        self._process: subprocess.Popen[str] | None = None
        self._url: str | None = None

    @property
    def url(self) -> str:
        if self._url is None:
            raise DaemonDied("the daemon is not running: call `start`")
        return self._url

    @property
    def pid(self) -> int:
        return self._running().pid

    def __enter__(self) -> LiveDaemon:
        try:
            self.start()
            self.wait_ready()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> None:
        """Starts the process and waits until it listens; pools may still be starting."""
        if self._process is not None and self._process.poll() is None:
            raise DaemonDied("the daemon runs already")
        command = [sys.executable, "-m", "orchqueue", "serve", "--config", str(self.config_path)]
        with self.log_path.open("ab") as log:
            # The command is ours; nothing of it comes from outside.
            self._process = subprocess.Popen(  # noqa: S603
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                env=self._env,
                text=True,
                cwd=self.folder,
                start_new_session=self._own_session,
            )
        self._url = self._read_address(self._process)

    def wait_ready(self, timeout_s: float = START_S) -> None:
        """Waits until every replica of every pool is ready."""
        until = time.monotonic() + timeout_s
        with self.client() as client:
            while True:
                replicas = client.replicas()["replicas"]
                if replicas and all(one["state"] == "ready" for one in replicas):
                    return
                if time.monotonic() > until:
                    raise DaemonDied(f"not ready after {timeout_s:g} s: {replicas}{self._log_tail()}")
                self._running()
                time.sleep(_POLL_S)

    def client(self, key: str | None = None, *, retry: Retry | None = None) -> Client:
        """A new client of this daemon; the caller closes it."""
        from orchqueue.client_sync import Client

        return Client(self.url, key, retry=retry)

    def replica_pids(self) -> list[int]:
        """The processes of the replicas that this daemon has started."""
        return [pid for pid in _children(self.pid) if b"orchqueue.engines" in _command_line(pid)]

    def kill(self) -> None:
        """kill -9: no clean-up of any kind runs in the daemon."""
        process = self._running()
        process.kill()
        process.wait(STOP_S)
        self._forget()

    def stop(self) -> int:
        """Asks the daemon to end and returns its exit code."""
        process = self._running()
        process.send_signal(signal.SIGTERM)
        try:
            code = process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(STOP_S)
            raise DaemonDied(f"it did not stop within {STOP_S:g} s{self._log_tail()}") from None
        finally:
            self._forget()
        return code

    def close(self) -> None:
        """Stops the daemon if it runs and removes the folder if it is a temporary one."""
        if self._process is not None:
            if self._process.poll() is None:
                self.stop()
            else:
                self._forget()
        if self._own_folder is not None:
            self._own_folder.cleanup()

    def _write_config(self, config: Mapping[str, Any]) -> None:
        document = {
            **config,
            "server": {"port": 0, **config.get("server", {})},
            "store": {"url": f"sqlite:///{self.folder}/live.db", **config.get("store", {})},
        }
        # JSON is YAML: the file is read like any other.
        self.config_path.write_text(json.dumps(document, indent=1))

    def _read_address(self, process: subprocess.Popen[str]) -> str:
        """Waits for the line with the address; keeps reading after it, so that the pipe never fills."""
        found: list[str] = []
        settled = threading.Event()
        output = process.stdout
        if output is None:
            raise DaemonDied("the daemon has no standard output")

        def read() -> None:
            with output:
                for line in output:
                    if line.startswith(_READY_PREFIX) and not found:
                        found.append(line.removeprefix(_READY_PREFIX).strip())
                        settled.set()
            settled.set()

        threading.Thread(target=read, name="live-daemon-output", daemon=True).start()
        settled.wait(START_S)
        if found:
            return found[0]
        if process.poll() is None:
            process.kill()
        process.wait(STOP_S)
        raise DaemonDied(f"it did not start, exit code: {process.returncode}{self._log_tail()}")

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None:
            raise DaemonDied("the daemon is not running: call `start`")
        if self._process.poll() is not None:
            raise DaemonDied(f"it ended, exit code: {self._process.returncode}{self._log_tail()}")
        return self._process

    def _forget(self) -> None:
        self._process = None
        self._url = None

    def _log_tail(self) -> str:
        lines = self.log_path.read_text(errors="replace").splitlines()[-20:] if self.log_path.exists() else []
        return "\n".join(["", *lines])


def _clean_environment() -> dict[str, str]:
    """The environment without what would change a daemon's configuration."""
    return {name: value for name, value in os.environ.items() if not name.startswith("ORCHQUEUE_")}


def _children(pid: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            # The name in parentheses may hold spaces; what counts stands after it.
            stat = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(stat[1]) == pid and stat[0] != "Z":
            found.append(int(entry.name))
    return sorted(found)


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
