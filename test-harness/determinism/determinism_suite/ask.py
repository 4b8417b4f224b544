"""Asks one engine directly, with the request that the adapter would send, and keeps the log-probabilities."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import httpx
from orchqueue import _core
from orchqueue.adapters.llamacpp import LLAMACPP
from orchqueue.determinism.cases import Case

#: An id that decides nothing: every case has a seed of its own.
_TASK_ID = str(uuid.UUID(int=0))
#: A start that all prompts share, so that a prompt cache has something to keep. It is also what makes prompts
#: long: with flash attention on threads share the work, and so change the numbers, only past 256 tokens.
PREFIX = "You are one of several replicas. Whatever you are asked, all of you must answer alike. " * 4


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back for one case."""

    text: str
    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Load:
    """How the cases are asked."""

    #: How many are under way at once.
    clients: int = 1
    #: Last case first.
    reverse: bool = False
    #: Lets the engine keep what prompts share.
    cache_prompt: bool = False


def ask_all(url: str, cases: Sequence[Case], load: Load) -> list[Answer]:
    """The answers in the order of the cases, however they were asked."""
    order = list(reversed(range(len(cases)))) if load.reverse else list(range(len(cases)))
    with httpx.Client(base_url=url, timeout=600, trust_env=False) as http:

        def ask(number: int) -> tuple[int, Answer]:
            return number, _ask(http, cases[number], load)

        with ThreadPoolExecutor(load.clients) as clients:
            found = dict(clients.map(ask, order))
    return [found[number] for number in range(len(cases))]


def _ask(http: httpx.Client, case: Case, load: Load) -> Answer:
    task = {name: value for name, value in case.fields().items() if name != "determinism"}
    effective = _core.task_effective(json.dumps({**task, "prompt": PREFIX + case.prompt}), _TASK_ID)
    body = json.loads(_core.render_request(json.dumps(LLAMACPP.document()), "completion", effective))
    body |= {"stream": False, "n_probs": 1, "cache_prompt": load.cache_prompt}
    answer = http.post("/completion", json=body).raise_for_status().json()
    steps = answer["completion_probabilities"]
    return Answer(
        text=answer["content"],
        tokens=tuple(step["id"] for step in steps),
        logprobs=tuple(float(step["logprob"]) for step in steps),
    )
