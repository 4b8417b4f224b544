"""What is measured: how each gateway is started, and why one is absent.

Every gateway gets one core, two engines, kept connections and no access log.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from phases import Phase, Request, openai_request, task_request

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PEERS = ROOT / ".cache" / "peers"
VLLM_ROUTER = "0.1.17"


class Absent(Exception):
    """A gateway cannot be measured here; the message says why."""


@dataclass(frozen=True)
class Launch:
    """A gateway to be started."""

    command: Sequence[str]
    #: A path that answers 200 once requests can be served.
    ready: str
    headers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Place:
    """Where a gateway may listen and write, and where its engines are."""

    folder: Path
    port: int
    engines: tuple[int, int]


class Target(ABC):
    """One row of the table."""

    name: str

    @abstractmethod
    def version(self) -> str:
        """Exactly what is measured; raises `Absent`."""

    @abstractmethod
    def launch(self, place: Place) -> Launch | None:
        """How it is started; `None`: the clients go straight to an engine."""

    def request(self, phase: Phase) -> Request:
        return openai_request(phase)


class Direct(Target):
    name = "direct"

    def version(self) -> str:
        return "no gateway"

    def launch(self, place: Place) -> None:
        return None


class Nginx(Target):
    name = "nginx"

    def version(self) -> str:
        return _said([_nginx(), "-v"]).removeprefix("nginx version: ")

    def launch(self, place: Place) -> Launch:
        text = (HERE / "peers" / "nginx.conf").read_text(encoding="utf-8")
        values = {
            "FOLDER": place.folder,
            "PORT": place.port,
            "ENGINE_0": place.engines[0],
            "ENGINE_1": place.engines[1],
        }
        for name, value in values.items():
            text = text.replace(f"@{name}@", str(value))
        config = place.folder / "nginx.conf"
        config.write_text(text, encoding="utf-8")
        return Launch([_nginx(), "-c", str(config), "-p", str(place.folder)], "/health")


def _nginx() -> str:
    found = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
    if found is None:
        raise Absent("not installed: apt install nginx-light")
    return found


class VllmRouter(Target):
    name = "vllm-router"

    def version(self) -> str:
        _vllm_router()
        return f"vllm-router {VLLM_ROUTER} (round robin)"

    def launch(self, place: Place) -> Launch:
        engines = [f"http://127.0.0.1:{port}" for port in place.engines]
        words = ["--host", "127.0.0.1", "--port", str(place.port), "--worker-urls", *engines]
        words += ["--policy", "round_robin", "--prometheus-port", str(place.port + 1)]
        words += ["--prometheus-host", "127.0.0.1", "--worker-startup-check-interval", "1"]
        return Launch([_vllm_router(), *words, "--log-level", "warning"], "/health")


def _vllm_router() -> str:
    """The router in an environment of its own, made on first use."""
    home = PEERS / f"vllm-router-{VLLM_ROUTER}"
    program = home / "bin" / "vllm-router"
    if not program.exists():
        try:
            _said([sys.executable, "-m", "venv", "--clear", str(home)])
            _said([str(home / "bin" / "pip"), "install", "--quiet", f"vllm-router=={VLLM_ROUTER}"])
        except subprocess.CalledProcessError as error:
            last = (str(error.stdout).strip().splitlines() or ["no message"])[-1]
            raise Absent(f"could not be installed: {last}") from error
    return str(program)


class Orchqueue(Target):
    """The daemon as it is meant to run: an API key on, journal and store on, metrics and digests on."""

    name = "orchqueue, OpenAI door"

    def version(self) -> str:
        said = _said([sys.executable, "-m", "orchqueue", "--version"])
        commit = _said(["git", "-C", str(ROOT), "describe", "--always", "--dirty"])
        return f"{said}, commit {commit}, release profile"

    def launch(self, place: Place) -> Launch:
        config = place.folder / "orchqueue.yaml"
        config.write_text(json.dumps(_config(place)), encoding="utf-8")
        command = [sys.executable, "-m", "orchqueue"]
        said = _said([*command, "key", "create", "--config", str(config), "--json"])
        key = json.loads(said.splitlines()[0])["key"]
        bearer = f"Authorization: Bearer {key}"
        return Launch([*command, "serve", "--config", str(config)], "/readyz", (bearer,))


class OrchqueueTasks(Orchqueue):
    name = "orchqueue, /v1/tasks"

    def request(self, phase: Phase) -> Request:
        return task_request(phase)


def _config(place: Place) -> dict[str, object]:
    """Nothing is refused here: the bench measures what a request costs, not how a full queue refuses it."""
    replicas = [{"url": f"http://127.0.0.1:{port}", "slots": 1024} for port in place.engines]
    pool = {"id": "bench", "engine": "llamacpp", "determinism": "best_effort", "replicas": replicas}
    return {
        "server": {"host": "127.0.0.1", "port": place.port, "threads": 1},
        "store": {"url": f"sqlite:///{place.folder / 'bench.db'}"},
        "classes": [{"name": "interactive", "capacity": 100_000}],
        "pools": [pool],
        "log": {"level": "warning"},
    }


TARGETS: tuple[Target, ...] = (Direct(), Nginx(), VllmRouter(), Orchqueue(), OrchqueueTasks())


def _said(command: Sequence[str]) -> str:
    """What a command prints, on either stream."""
    done = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300
    )
    return done.stdout.strip()
