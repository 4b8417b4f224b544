"""The real daemon inside the test's process, in front of scripted engines.

Front door, scheduler, streams, digests and receipts are the ones that production runs. Left out is the
Python control plane: no store, no pool supervisor, no `/metrics`. For those use `LiveDaemon`.
"""

from __future__ import annotations

import json
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchqueue import __version__
from orchqueue.testing.scripted import Script, ScriptedEngine, engine

if TYPE_CHECKING:
    from orchqueue._core import Daemon
    from orchqueue.client import AsyncClient
    from orchqueue.client_sync import Client
    from orchqueue.config import Config, PoolConfig
    from orchqueue.retry import Retry

POOL = "test"
MODEL = "scripted"
_EVENT_WAIT_MS = 100


@dataclass(frozen=True, slots=True)
class Setup:
    """How a scripted daemon is set up, beside its script."""

    #: Engines that all follow the one script; each answers by its own count of requests.
    replicas: int = 1
    slots: int = 1
    #: Sections of the configuration file, laid over what the test needs.
    settings: Mapping[str, Any] = field(default_factory=dict)
    #: Keys of the pool in the configuration file, such as `timeouts` or `determinism`.
    pool: Mapping[str, Any] = field(default_factory=dict)


class ScriptedDaemon:
    """A running daemon in front of scripted engines. Made by `daemon()`."""

    def __init__(self, core: Daemon, url: str, engines: list[ScriptedEngine]) -> None:
        #: The daemon's control surface, for tests that change pools and replicas.
        self.core = core
        self.url = url
        self.engines = engines

    @property
    def engine(self) -> ScriptedEngine:
        """The first engine."""
        return self.engines[0]

    def client(self, *, retry: Retry | None = None) -> Client:
        """A new client of this daemon; the caller closes it."""
        from orchqueue.client_sync import Client

        return Client(self.url, retry=retry)

    def async_client(self, *, retry: Retry | None = None) -> AsyncClient:
        """A new async client of this daemon; the caller closes it."""
        from orchqueue.client import AsyncClient

        return AsyncClient(self.url, retry=retry)

    def apply(self, op: str, **fields: Any) -> Any:
        """Gives the daemon one control command and returns its answer."""
        return json.loads(self.core.apply(json.dumps({"op": op, **fields})))


@contextmanager
def daemon(
    script: Script = ("Hello from the scripted engine.",), setup: Setup | None = None
) -> Iterator[ScriptedDaemon]:
    """A daemon on a free port of this machine; it is shut down and leaves nothing behind."""
    from orchqueue._core import Daemon, generate_receipt_key
    from orchqueue.config import runtime_document

    setup = setup or Setup()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="orchqueue-test-")))
        engines = [stack.enter_context(engine(script, slots=setup.slots)) for _ in range(setup.replicas)]
        config = _config(folder, setup, engines)
        key_id, secret_hex, _ = generate_receipt_key()
        key = {"key_id": key_id, "secret_hex": secret_hex, "active": True}
        document = runtime_document(config, version=__version__, receipt_keys=[key])
        # A test's standard error is its own.
        document["log_tasks"] = False
        core = Daemon(json.dumps(document))
        stack.callback(core.shutdown, 0)
        running = ScriptedDaemon(core, f"http://{core.start()}", engines)
        running.apply("keys_set", pepper_hex="00" * 32, keys=[])
        _announce(running, config.pools[0])
        stack.enter_context(_answering_probes(running))
        yield running


def _config(folder: Path, setup: Setup, engines: list[ScriptedEngine]) -> Config:
    from orchqueue.config import load

    document: dict[str, Any] = dict(setup.settings)
    document["server"] = {"port": 0, **document.get("server", {})}
    document["store"] = {**document.get("store", {}), "url": f"sqlite:///{folder}/test.db"}
    replicas = [{"url": one.url, "slots": one.slots} for one in engines]
    document["pools"] = [
        {
            "id": POOL,
            "engine": "llamacpp",
            "model": MODEL,
            "ctx": 512,
            "determinism": "best_effort",
            "replicas": replicas,
            **setup.pool,
        }
    ]
    # JSON is YAML: the file is read like any other.
    path = folder / "config.yaml"
    path.write_text(json.dumps(document))
    return load(path, {})


def _announce(running: ScriptedDaemon, pool: PoolConfig) -> None:
    from orchqueue.adapters import adapter_for

    adapter = adapter_for(pool.engine)
    timeouts = pool.timeouts
    running.apply(
        "pool_set",
        pool=pool.id,
        engine=pool.engine,
        models=[MODEL],
        ctx=pool.ctx,
        workloads=list(adapter.workloads),
        determinism=pool.determinism,
        timeouts={
            "first_token_ms": timeouts.first_token_ms,
            "idle_ms": timeouts.idle_ms,
            "wall_ms": timeouts.wall_ms,
        },
        state="ready",
        longest_token_bytes=None,
        adapter=adapter.document(),
    )
    for number, one in enumerate(running.engines):
        replica = f"{pool.id}-{number}"
        running.apply(
            "replica_set",
            pool=pool.id,
            replica=replica,
            url=one.url,
            api_key=None,
            ca_file=None,
            slots=one.slots,
            reproducible=True,
            engine_version="scripted",
            model_digest="0" * 64,
            identity=_identity(pool),
        )
        running.apply("replica_ready", replica=replica)


def _identity(pool: PoolConfig) -> dict[str, Any]:
    return {
        "engine": pool.engine,
        "build": "scripted",
        "model_digest": "0" * 64,
        "quant": "none",
        "ctx": pool.ctx,
        "sampler_profile_version": "v1",
        "device_class": "scripted",
        "flags": {},
    }


@contextmanager
def _answering_probes(running: ScriptedDaemon) -> Iterator[None]:
    """Takes the supervisor's part: a replica that is asked about is ready while its engine says so."""
    done = threading.Event()

    def pump() -> None:
        while not done.is_set():
            text = running.core.next_event(_EVENT_WAIT_MS)
            event = json.loads(text) if text is not None else {}
            if event.get("event") == "probe":
                running.apply("replica_ready", replica=event["replica"])
            elif event.get("event") == "stopped":
                return

    thread = threading.Thread(target=pump, name="scripted-daemon-events", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
