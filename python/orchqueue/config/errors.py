"""What can be wrong with a configuration, said so that the reader can put it right."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """One fault: where it is, what it is and what to do about it."""

    path: str
    message: str
    hint: str | None = None
    origin: str | None = None

    def __str__(self) -> str:
        place = f"{self.origin}: " if self.origin else ""
        subject = f"`{self.path}`: " if self.path else ""
        hint = f"\n  hint: {self.hint}" if self.hint else ""
        return f"{place}{subject}{self.message}{hint}"


class ConfigError(Exception):
    """The configuration cannot be used. `problems` lists every fault that was found, in document order."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems: tuple[Problem, ...] = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


def show_path(parts: Sequence[str | int]) -> str:
    """`("pools", 0, "id")` as `pools[0].id`."""
    shown = ""
    for part in parts:
        if isinstance(part, int):
            shown += f"[{part}]"
        else:
            shown += f".{part}" if shown else part
    return shown


def suggest(given: str, known: Sequence[str]) -> str | None:
    """A hint for a word that is not known."""
    close = difflib.get_close_matches(given, known, n=1, cutoff=0.6)
    if close:
        return f"did you mean `{close[0]}`?"
    return f"known are {', '.join(f'`{name}`' for name in sorted(known))}" if known else None
