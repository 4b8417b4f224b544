"""How far two engines are apart on the same cases: in their texts, and already in their log-probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from determinism_suite.ask import Answer


@dataclass(frozen=True, slots=True)
class Apart:
    """The distance between two lists of answers."""

    cases: int
    #: Cases whose texts differ.
    texts: int
    #: Cases whose log-probabilities differ in any bit, before their texts part.
    logprobs: int
    #: The largest difference of a log-probability while both sides still had the same tokens.
    most: float

    @property
    def harmless(self) -> bool:
        return self.texts == 0 and self.logprobs == 0

    def share(self) -> float:
        """The part of the cases in which the numbers differ."""
        return self.logprobs / self.cases


def compare(left: Sequence[Answer], right: Sequence[Answer]) -> Apart:
    texts, logprobs, most = 0, 0, 0.0
    for one, other in zip(left, right, strict=True):
        texts += one.text != other.text
        delta, same = _numbers(one, other)
        logprobs += not same
        most = max(most, delta)
    return Apart(len(left), texts, logprobs, most)


def _numbers(one: Answer, other: Answer) -> tuple[float, bool]:
    """The largest difference before the tokens part, and whether there was none to the end."""
    most = 0.0
    steps = zip(one.tokens, other.tokens, one.logprobs, other.logprobs, strict=False)
    for left_id, right_id, left, right in steps:
        if left_id != right_id:
            return most, False
        most = max(most, abs(left - right))
    return most, most == 0.0 and len(one.tokens) == len(other.tokens)
