"""The real llama.cpp server in this process, one sequence and one thread, asked over HTTP."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import xllamacpp

#: Sampler profile v1: what the daemon sends for every parameter that a task leaves out.
PROFILE_V1: Mapping[str, float] = {
    "temperature": 0.7,
    "top_k": 40,
    "top_p": 0.95,
    "min_p": 0.05,
    "typical_p": 1.0,
    "repeat_penalty": 1.0,
    "repeat_last_n": 64,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
}
LONGEST_ANSWER = 160


class Engine:
    """One server on one GGUF, up for the length of a `with` block."""

    version = f"xllamacpp {version('xllamacpp')}"

    def __init__(self, gguf: Path, ctx: int = 512) -> None:
        params = xllamacpp.CommonParams()
        params.model.path = str(gguf)
        params.hostnames, params.port = ["127.0.0.1"], 0
        params.n_ctx, params.n_parallel, params.cont_batching = ctx, 1, False
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
        params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        params.cache_prompt, params.cache_ram_mib = False, 0
        params.fit_params, params.ui, params.verbosity, params.n_gpu_layers = False, False, 0, 0
        self._server: Any = xllamacpp.Server(params)
        self._url: str = self._server.listening_address

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server = None

    def chat(self, prompt: str, seed: int, system: str | None = None, **sampler: float) -> str:
        """The answer to a chat of one message, after an optional system text."""
        messages = [{"role": "system", "content": system}] if system else []
        messages.append({"role": "user", "content": prompt})
        body = {"messages": messages, "max_tokens": LONGEST_ANSWER}
        answer = self._post("/v1/chat/completions", body | {**PROFILE_V1, "seed": seed} | sampler)
        text: str = answer["choices"][0]["message"]["content"]
        return text

    def complete(self, prompt: str, seed: int, **sampler: float) -> str:
        """What follows the bare prompt."""
        body = {"prompt": prompt, "n_predict": LONGEST_ANSWER}
        text: str = self._post("/completion", body | {**PROFILE_V1, "seed": seed} | sampler)["content"]
        return text

    def _post(self, path: str, body: Mapping[str, object]) -> dict[str, Any]:
        request = urllib.request.Request(  # noqa: S310 - a loopback address of our own
            self._url + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as response:  # noqa: S310
            answer: dict[str, Any] = json.load(response)
        return answer
