"""When to try again: the server's word first, an exponential wait where it says nothing, both bounded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from orchqueue.errors import DaemonUnreachable, OrchqueueError, ServerError


@dataclass(frozen=True, slots=True)
class Retry:
    """How often and how long a client tries.

    Submitting twice is safe: the client makes the task's id, so the daemon knows the task again.
    """

    #: Tries in all; 1 turns retries off.
    attempts: int = 4
    #: Longest time to spend waiting, over all tries of one call.
    max_wait_s: float = 60.0
    #: First wait where the server names none; doubled each time.
    base_s: float = 0.2

    def wait_s(self, error: OrchqueueError, tried: int, waited_s: float) -> float | None:
        """Seconds to wait before the next try, or None when `error` is final.

        `tried` counts the tries so far, `waited_s` the time already spent waiting.
        """
        if tried >= self.attempts or not _may_retry(error):
            return None
        wait = self.base_s * 2 ** (tried - 1)
        if isinstance(error, ServerError) and error.retry_after_ms is not None:
            wait = error.retry_after_ms / 1000
        return wait if waited_s + wait <= self.max_wait_s else None


#: No retries at all.
NEVER = Retry(attempts=1)


def _may_retry(error: OrchqueueError) -> bool:
    if isinstance(error, ServerError):
        return error.retriable
    return isinstance(error, DaemonUnreachable)


def retry_after_ms(headers: Mapping[str, str]) -> int | None:
    """The wait that the answer's headers ask for: `X-Backoff-Ms` is finer than `Retry-After`, so it wins."""
    for name, factor in (("x-backoff-ms", 1), ("retry-after", 1000)):
        value = headers.get(name, "")
        if value.isascii() and value.isdigit():
            return int(value) * factor
    return None
