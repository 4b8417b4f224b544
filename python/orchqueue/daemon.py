"""The composition root: builds the daemon from its parts, runs it, takes it down in order.

Start: lease, receipt keys, Rust daemon (journal recovered, port open), then the pools, and only then what is
slow to import: store and control app. Requests that come early wait for the API keys in the front door.

Stop: the front door drains while replicas and journal still work; then replicas end, the history is folded,
the store closes. A second signal shortens the drain, a third ends the process.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from orchqueue import __version__, logs
from orchqueue.config import AttachedReplica, Config, runtime_document
from orchqueue.determinism.keys import ReceiptKeys
from orchqueue.store.errors import StoreError
from orchqueue.store.lease import FileLease, wall_ms

if TYPE_CHECKING:
    from orchqueue._core import Daemon as CoreDaemon
    from orchqueue.control.server import ControlServer
    from orchqueue.keys import KeyWatch
    from orchqueue.pools.supervisor import Supervisor
    from orchqueue.store import Store
    from orchqueue.store.fold import Folder

log = logging.getLogger(__name__)

_EVENT_WAIT_MS = 500
#: After a second signal.
_HURRY_MS = 500
#: Replicas hold nothing worth waiting for once the tasks have ended.
_STOP_REPLICAS_MS = 2_000


class DaemonFailed(Exception):
    """The daemon cannot be started like this, or cannot go on. The message says what to do."""


def run(config: Config, announce: Callable[[str], None] | None = None) -> int:
    """Runs the daemon until a signal ends it; `announce` hears the address once it listens. Exit status."""
    handler = logs.configure(config.log_level, secrets=_secrets(config))
    # Journal, store and notes hold prompts and outputs: they are their owner's alone.
    os.umask(0o077)
    try:
        for warning in config.warnings:
            log.warning("configuration", extra={"cause": warning})
        with Daemon.opened(config) as daemon:
            asyncio.run(daemon.serve(announce))
        return 0
    except (DaemonFailed, StoreError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    finally:
        logging.getLogger().removeHandler(handler)


class Daemon:
    """One daemon. Nothing of it is global: two of them run in one process, on stores of their own."""

    def __init__(self, config: Config, core: CoreDaemon, hold: _Hold) -> None:
        self.url = f"http://{_start(config, core)}"
        self._config = config
        self._core = core
        self._hold = hold
        self._stop = asyncio.Event()
        self._signals = 0
        self._hurries: set[asyncio.Future[None]] = set()

    @classmethod
    @contextlib.contextmanager
    def opened(cls, config: Config) -> Iterator[Daemon]:
        """A daemon that listens. What it holds is given back at the end, also of a start that fails."""
        with contextlib.ExitStack() as held:
            lease = FileLease.take(config.store.files)
            held.callback(lease.release)
            store = None if config.server.loopback else held.enter_context(_store_with_keys(config, lease))
            folder = tempfile.mkdtemp(prefix="orchqueue-")
            held.callback(shutil.rmtree, folder, ignore_errors=True)
            path = os.path.join(folder, "control.sock")
            control = held.enter_context(contextlib.closing(_listen(path)))
            core = _core_daemon(config, path)
            held.callback(core.shutdown, 0)
            daemon = cls(config, core, _Hold(lease, control, store))
            log.info("listening", extra={"url": daemon.url, "version": __version__, "pid": os.getpid()})
            yield daemon
        log.info("stopped")

    def stop(self) -> None:
        """Ends `serve` in order. From another thread: `loop.call_soon_threadsafe(daemon.stop)`."""
        self._stop.set()

    async def serve(self, announce: Callable[[str], None] | None = None) -> None:
        """Runs pools, store and control app until `stop` or a signal; then takes them down in order."""
        with self._signals_handled():
            # Whoever has heard the address may send a signal: from here on one is heard.
            if announce is not None:
                announce(self.url)
            from orchqueue.pools.supervisor import Supervisor

            supervisor = Supervisor(self._core, self._config)
            pump = asyncio.ensure_future(self._pump(supervisor))
            try:
                await self._serve(supervisor)
            finally:
                await asyncio.to_thread(self._core.shutdown, 0)
                await supervisor.stop(_STOP_REPLICAS_MS)
                pump.cancel()
                await asyncio.gather(pump, *self._hurries, return_exceptions=True)

    async def _serve(self, supervisor: Supervisor) -> None:
        from orchqueue.pools.core import CommandRefused
        from orchqueue.pools.supervisor import PoolsUnusable

        try:
            await supervisor.start()
        except (PoolsUnusable, CommandRefused) as error:
            raise DaemonFailed(str(error)) from error
        async with self._control_plane(supervisor) as plane:
            failed = await plane.until(self._stop)
            await asyncio.to_thread(self._core.shutdown, self._config.server.drain_ms)
            await supervisor.stop(_STOP_REPLICAS_MS)
        if failed is not None:
            raise DaemonFailed(f"a part of the daemon has failed: {failed}")

    @contextlib.asynccontextmanager
    async def _control_plane(self, supervisor: Supervisor) -> AsyncIterator[_Plane]:
        """Store, journal fold, API keys and control app; the store is the last to go."""
        # In a thread: while SQLAlchemy and the app are imported the replicas come up.
        store = self._hold.store
        if store is None:
            store = await asyncio.to_thread(self._open_store)
        try:
            plane = await asyncio.to_thread(_Plane.build, self._core, store, supervisor, self._config)
            plane.start(self._hold.control)
            try:
                yield plane
            finally:
                await plane.finish()
        finally:
            await asyncio.to_thread(store.close)

    def _open_store(self) -> Store:
        from orchqueue.store import Store

        return Store.open(self._config.store.url, lease=self._hold.lease)

    async def _pump(self, supervisor: Supervisor) -> None:
        """Carries the Rust daemon's events to the pools."""
        while True:
            text = await asyncio.to_thread(self._core.next_event, _EVENT_WAIT_MS)
            if text is None:
                continue
            event = json.loads(text)
            if event.get("event") == "stopped":
                return
            await supervisor.on_event(event)

    @contextlib.contextmanager
    def _signals_handled(self) -> Iterator[None]:
        """SIGTERM and SIGINT stop the daemon; only the main thread can have signals."""
        loop = asyncio.get_running_loop()
        numbers = (signal.SIGTERM, signal.SIGINT)
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        for number in numbers:
            loop.add_signal_handler(number, self._on_signal, number)
        try:
            yield
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)

    def _on_signal(self, number: signal.Signals) -> None:
        self._signals += 1
        log.info("signal", extra={"signal": number.name})
        self._stop.set()
        if self._signals == 2:
            # Whoever asks twice does not wait for the running tasks; they run again at the next start.
            self._hurries.add(asyncio.ensure_future(asyncio.to_thread(self._core.shutdown, _HURRY_MS)))
        elif self._signals > 2:
            os._exit(130)


@dataclass(frozen=True, slots=True)
class _Hold:
    """What was taken before the front door opened."""

    lease: FileLease
    control: socket.socket
    store: Store | None


class _Plane:
    """The slow half of the daemon: everything that needs the store."""

    def __init__(self, folder: Folder, watch: KeyWatch, server: ControlServer) -> None:
        self._folder = folder
        self._watch = watch
        self._server = server
        self._stop = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    @classmethod
    def build(cls, core: CoreDaemon, store: Store, supervisor: Supervisor, config: Config) -> _Plane:
        from orchqueue.control import app
        from orchqueue.control.server import ControlServer
        from orchqueue.keys import KeyWatch
        from orchqueue.store.fold import Folder
        from orchqueue.store.rows import Retention

        retention = Retention(config.store.retention_hours, config.store.retention_max_mb)
        return cls(
            Folder(core, store, retention, wall_ms),
            KeyWatch(store, lambda command: core.apply(json.dumps(command))),
            ControlServer(app.build(core, store, supervisor, config)),
        )

    def start(self, control: socket.socket) -> None:
        self._tasks = [
            asyncio.ensure_future(self._watch.run(self._stop)),
            asyncio.ensure_future(self._server.serve([control])),
            asyncio.ensure_future(self._folder.run(self._stop)),
        ]

    async def until(self, stop: asyncio.Event) -> BaseException | None:
        """Waits for `stop`, or for a part that ends by itself; what it died of."""
        stopped = asyncio.ensure_future(stop.wait())
        done, _ = await asyncio.wait({stopped, *self._tasks}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        failed = next((task.exception() for task in done if task is not stopped), None)
        if failed is not None:
            log.error("a part of the daemon has failed", exc_info=failed)
        return failed

    async def finish(self) -> None:
        """Ends every part; the last records are folded."""
        self._stop.set()
        self._server.should_exit = True
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _core_daemon(config: Config, control_socket: str) -> CoreDaemon:
    from orchqueue._core import Daemon as CoreDaemon

    keys = ReceiptKeys.open(config.store.files.keys).runtime()
    document = runtime_document(config, version=__version__, control_socket=control_socket, receipt_keys=keys)
    try:
        return CoreDaemon(json.dumps(document))
    except (ValueError, OSError) as error:
        raise DaemonFailed(str(error)) from error


def _start(config: Config, core: CoreDaemon) -> str:
    try:
        return core.start()
    except OSError as error:
        where = f"{config.server.host}:{config.server.port}"
        raise DaemonFailed(
            f"cannot listen on `{where}`: {error}\nhint: choose another `server.port`; 0 takes a free one"
        ) from error


@contextlib.contextmanager
def _store_with_keys(config: Config, lease: FileLease) -> Iterator[Store]:
    """The store of a daemon that others than this host can reach: without a key it must not open its door."""
    from orchqueue.store import Store

    store = Store.open(config.store.url, lease=lease)
    try:
        if all(key.revoked_ms is not None for key in store.api_keys()):
            raise DaemonFailed(
                f"`server.host`: {config.server.host} is open to other hosts, and no API key is stored\n"
                "hint: `orchqueue key create`, or listen on 127.0.0.1"
            )
        yield store
    finally:
        store.close()


def _listen(path: str) -> socket.socket:
    """The control app's socket, before the app exists: early requests wait in its backlog."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path)
    os.chmod(path, 0o600)
    listener.listen(128)
    return listener


def _secrets(config: Config) -> list[str]:
    """Values that no log line may carry."""
    keys = [
        replica.api_key.get_secret_value()
        for pool in config.pools
        for replica in pool.replicas
        if isinstance(replica, AttachedReplica) and replica.api_key is not None
    ]
    return [*keys, urlsplit(config.store.url).password or ""]
