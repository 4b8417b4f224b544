"""What is measured: the phases of a round, and the requests that each door takes in them."""

from __future__ import annotations

import json
from dataclasses import dataclass

PROMPT = "Write a haiku about a queue."


@dataclass(frozen=True)
class Phase:
    """One load. `interval_us` 0: the engine sends the whole answer in one write."""

    name: str
    streams: int
    tokens: int
    interval_us: int
    seconds: float
    #: Answers come in one piece instead of as a stream.
    whole: bool = False

    @property
    def spread_ms(self) -> int:
        """Starts are spread over the length of a stream, so that streams do not beat in step."""
        return self.tokens * self.interval_us // 1000


PHASES = (
    Phase("whole", streams=64, tokens=1, interval_us=0, seconds=2, whole=True),
    Phase("burst", streams=64, tokens=64, interval_us=0, seconds=2),
    Phase("paced_1", streams=1, tokens=8, interval_us=15_000, seconds=4),
    Phase("paced_64", streams=64, tokens=64, interval_us=15_000, seconds=4),
    Phase("paced_256", streams=256, tokens=64, interval_us=15_000, seconds=4),
)


@dataclass(frozen=True)
class Request:
    """What the clients send, and how they see that a stream is complete."""

    path: str
    body: bytes
    headers: tuple[str, ...]
    end: str | None


def openai_request(phase: Phase) -> Request:
    body = {
        "model": "bench",
        "messages": [{"role": "user", "content": PROMPT}],
        "max_tokens": phase.tokens,
        "stream": not phase.whole,
    }
    return Request("/v1/chat/completions", json.dumps(body).encode(), (), None if phase.whole else "[DONE]")


def task_request(phase: Phase) -> Request:
    body: dict[str, object] = {"prompt": PROMPT, "max_tokens": phase.tokens}
    if phase.whole:
        return Request(
            "/v1/tasks", json.dumps({**body, "wait": True}).encode(), ("Accept: application/json",), None
        )
    return Request("/v1/tasks", json.dumps(body).encode(), ("Accept: text/event-stream",), "event: end")
