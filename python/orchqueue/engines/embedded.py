"""The embedded replica: llama.cpp's real HTTP server from the xllamacpp wheel, in a process of its own.

`python -m orchqueue.engines.embedded --model F …` prints one JSON line when the model is loaded and the
server listens; everything else goes to standard error. It ends when the pipe `--parent-fd` closes, so it
cannot outlive the daemon, however that died.

The settings are those under which equal requests were measured to give equal bytes: one sequence, flash
attention off, fixed threads and batch sizes, no prompt cache. They are the same for every embedded replica.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from pathlib import Path

PACKAGE = "xllamacpp"
#: Environment variable with the key that the server asks for.
KEY_VARIABLE = "ORCHQUEUE_REPLICA_KEY"
#: A large model is read from disk meanwhile.
START_TIMEOUT_S = 600.0
#: Log level of the server: errors and warnings.
_QUIET = 2
#: A connection holds a thread while it is kept alive: streams, the health poll and the idle poll need some.
_HTTP_THREADS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddedSettings:
    """How an embedded replica is launched; 0 for `ctx` is what the model was trained for."""

    model: Path
    ctx: int = 0
    threads: int = 1
    batch: int = 2_048
    ubatch: int = 512
    alias: str = ""
    port: int = 0

    def command(self, parent_fd: int) -> list[str]:
        """The command line that starts it."""
        settings = {
            "--model": self.model,
            "--alias": self.alias,
            "--port": self.port,
            "--ctx": self.ctx,
            "--threads": self.threads,
            "--batch": self.batch,
            "--ubatch": self.ubatch,
            "--parent-fd": parent_fd,
        }
        options = [text for name, value in settings.items() if value != "" for text in (name, str(value))]
        return [sys.executable, "-m", "orchqueue.engines.embedded", *options]

    def declared(self) -> dict[str, bool | int | str]:
        """The settings that decide about determinism; the daemon knows them because it launches."""
        return {
            "n_parallel": 1,
            "flash_attn": False,
            "n_batch": self.batch,
            "n_ubatch": self.ubatch,
            "n_threads": self.threads,
        }


def engine_version() -> str | None:
    """Version of the wheel: its server does not know its own build. `None`: not installed."""
    try:
        return f"{PACKAGE}-{metadata.version(PACKAGE)}"
    except metadata.PackageNotFoundError:
        return None


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(arguments)
    say = _keep_stdout()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: _leave())
    if options.parent_fd is not None:
        threading.Thread(target=_outlive_nobody, args=(options.parent_fd,), daemon=True).start()
    try:
        server = _serve(options)
    except ImportError:
        sys.stderr.write(
            f"the package `{PACKAGE}` is not installed; hint: pip install 'orchqueue[embedded]'\n"
        )
        return 3
    except (OSError, RuntimeError, ValueError) as error:
        sys.stderr.write(f"llama.cpp did not start: {error}\n")
        return 1
    address = str(server.listening_address).removeprefix("http://").rstrip("/")
    say(json.dumps({"listening": address, "engine_version": engine_version(), "pid": os.getpid()}))
    while True:
        signal.pause()


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m orchqueue.engines.embedded", description=__doc__)
    parser.add_argument("--model", required=True, help="GGUF file")
    parser.add_argument("--alias", default="", help="name under which the model is served")
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1; 0 takes a free one")
    parser.add_argument("--ctx", type=int, default=0, help="context; 0 is the model's own")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=2_048)
    parser.add_argument("--ubatch", type=int, default=512)
    # Other values are for measuring what they change (test-harness/determinism); the daemon never gives them.
    parser.add_argument("--parallel", type=int, default=1, help="sequences")
    parser.add_argument("--flash-attn", action="store_true")
    parser.add_argument("--kv-unified", action="store_true", help="sequences share their cache")
    parser.add_argument("--cache-prompt", action="store_true")
    parser.add_argument("--parent-fd", type=int, help="a pipe; the server ends when it closes")
    return parser.parse_args(arguments)


def _serve(options: argparse.Namespace) -> Any:
    """Loads the model and listens; returns when `/health` answers 200."""
    import xllamacpp  # type: ignore[import-untyped]

    params = xllamacpp.CommonParams()
    params.model.path = options.model
    params.hostnames = ["127.0.0.1"]
    # Without a key any web page could use the replica: the server allows all origins.
    if key := os.environ.pop(KEY_VARIABLE, ""):
        params.api_keys = [key]
    params.port = options.port
    if options.alias:
        params.model_alias = {options.alias}
    params.n_ctx = options.ctx
    params.n_batch = options.batch
    params.n_ubatch = options.ubatch
    params.cpuparams.n_threads = options.threads
    params.cpuparams_batch.n_threads = options.threads
    params.n_gpu_layers = 0
    params.n_parallel = options.parallel
    params.cont_batching = options.parallel > 1
    params.kv_unified = options.kv_unified
    flash = xllamacpp.llama_flash_attn_type
    params.flash_attn_type = (
        flash.LLAMA_FLASH_ATTN_TYPE_ENABLED if options.flash_attn else flash.LLAMA_FLASH_ATTN_TYPE_DISABLED
    )
    params.cache_prompt = options.cache_prompt
    params.cache_ram_mib = 0
    params.cache_idle_slots = False
    params.fit_params = False
    params.endpoint_metrics = True
    params.endpoint_slots = True
    params.endpoint_props = False
    params.ui = False
    params.sse_ping_interval = 1
    params.n_threads_http = _HTTP_THREADS
    params.verbosity = _QUIET
    return xllamacpp.Server(params)


def _keep_stdout() -> Callable[[str], None]:
    """Keeps standard output for our one line: whatever the engine prints goes to standard error."""
    stdout = os.dup(1)
    os.dup2(2, 1)

    def say(line: str) -> None:
        os.write(stdout, line.encode() + b"\n")
        os.close(stdout)

    return say


def _outlive_nobody(parent_fd: int) -> None:
    """Ends the process when the other end of the pipe is gone. Nothing is ever written to it."""
    while os.read(parent_fd, 1):
        continue
    _leave()


def _leave() -> NoReturn:
    # Without Python's and the engine's clean-up: with a stream open that would wait for the stream.
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
