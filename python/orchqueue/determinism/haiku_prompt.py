"""The prompt of the haiku: the current minute in words and a nonce, so that no answer can be canned."""

from __future__ import annotations

import secrets
import string
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

ZONE = "Europe/Amsterdam"
_ALPHABET = string.ascii_lowercase + string.digits
_ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen"
).split()
_TENS = ("twenty", "thirty", "forty", "fifty")


@dataclass(frozen=True, slots=True)
class HaikuPrompt:
    minute_words: str
    nonce: str

    @classmethod
    def now(cls) -> HaikuPrompt:
        """For this minute, with a nonce of its own."""
        nonce = "".join(secrets.choice(_ALPHABET) for _ in range(8))
        return cls(minute_words(datetime.now(ZoneInfo(ZONE)).minute), nonce)

    @property
    def text(self) -> str:
        return (
            f'Write a haiku (3 lines). Include this exact English minute phrase: "{self.minute_words}". '
            f'Also include this nonce verbatim: "{self.nonce}". Output only the poem.'
        )

    def faults(self, poem: str) -> list[str]:
        """What is missing from `poem`; nothing when it is accepted."""
        lines = [line for line in poem.splitlines() if line.strip()]
        found = []
        if len(lines) < 3:
            found.append(f"it has {len(lines)} lines, not 3")
        if self.minute_words not in poem:
            found.append("the minute is missing")
        if self.nonce not in poem:
            found.append("the nonce is missing")
        return found


def minute_words(minute: int) -> str:
    """0 to 59 in English words: `zero`, `seven`, `forty-two`."""
    if not 0 <= minute <= 59:
        raise ValueError(f"not a minute: {minute}")
    if minute < len(_ONES):
        return _ONES[minute]
    tens, ones = divmod(minute, 10)
    return _TENS[tens - 2] + (f"-{_ONES[ones]}" if ones else "")
