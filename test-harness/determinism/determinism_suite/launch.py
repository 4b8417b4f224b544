"""Engines of our own, started with the flags that a measurement wants; no daemon stands in front of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

START_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """How one engine is started. The defaults are those of every embedded replica."""

    model: Path
    ctx: int = 512
    threads: int = 1
    batch: int = 2048
    ubatch: int = 512
    parallel: int = 1
    flash_attn: bool = False
    kv_unified: bool = False
    cache_prompt: bool = False

    def command(self, parent_fd: int) -> list[str]:
        values = {
            "--model": self.model,
            # The context is that of one sequence; the engine divides what it is given.
            "--ctx": self.ctx * self.parallel,
            "--threads": self.threads,
            "--batch": self.batch,
            "--ubatch": self.ubatch,
            "--parallel": self.parallel,
            "--parent-fd": parent_fd,
        }
        switches = {
            "--flash-attn": self.flash_attn,
            "--kv-unified": self.kv_unified,
            "--cache-prompt": self.cache_prompt,
        }
        words = [text for name, value in values.items() for text in (name, str(value))]
        return [
            *(sys.executable, "-m", "orchqueue.engines.embedded"),
            *words,
            *(name for name, on in switches.items() if on),
        ]

    def flags(self) -> dict[str, bool | int]:
        """What stands in the artifact of a difference."""
        return {
            "n_parallel": self.parallel,
            "flash_attn": self.flash_attn,
            "n_batch": self.batch,
            "n_ubatch": self.ubatch,
            "n_threads": self.threads,
            "kv_unified": self.kv_unified,
            "cache_prompt": self.cache_prompt,
        }


@contextmanager
def running(launch: Launch) -> Iterator[str]:
    """The address of an engine that lives as long as the block."""
    read_end, write_end = os.pipe()
    process = subprocess.Popen(
        launch.command(read_end),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        stdin=subprocess.DEVNULL,
        pass_fds=(read_end,),
        text=True,
    )
    os.close(read_end)
    try:
        if process.stdout is None:
            raise RuntimeError("the engine has no standard output")
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(f"the engine did not start, exit code: {process.wait(START_S)}: {launch}")
        yield f"http://{json.loads(line)['listening']}"
    finally:
        os.close(write_end)
        process.wait(START_S)
        if process.stdout is not None:
            process.stdout.close()
