"""What the determinism suite asks: prompts that a seed decides, each at several temperatures."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

_SUBJECTS = ("the queue", "a replica", "the night train", "my neighbour", "an old map", "the last token")
_VERBS = ("waits for", "counts", "forgets", "answers", "follows", "measures")
_OBJECTS = ("the harbour", "every promise", "a slow clock", "two letters", "the first snow", "nothing at all")
_FORMS = ("Tell me why {}.", "Write on: {}", "{} Then", "List five reasons: {}", "Question: does {}? Answer:")
TEMPERATURES = (0.0, 0.7, 1.2)


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is asked; every prompt is asked at every temperature."""

    prompts: int = 16
    tokens: int = 64
    temperatures: tuple[float, ...] = TEMPERATURES
    #: Decides the prompts and their seeds.
    seed: int = 1

    def __post_init__(self) -> None:
        if self.prompts < 1 or self.tokens < 1:
            raise ValueError(f"at least one prompt and one token: {self.prompts}, {self.tokens}")
        if not self.temperatures:
            raise ValueError("at least one temperature is needed")

    def cases(self) -> list[Case]:
        """The same plan gives the same cases everywhere."""
        chance = random.Random(self.seed)  # noqa: S311 - repeatable on purpose
        drawn = [(_prompt(chance, number), chance.randrange(2**31)) for number in range(self.prompts)]
        return [
            Case(prompt, seed, temperature, self.tokens)
            for temperature in self.temperatures
            for prompt, seed in drawn
        ]


@dataclass(frozen=True, slots=True)
class Case:
    """One request. It must give the same bytes wherever it is decoded."""

    prompt: str
    seed: int
    temperature: float
    tokens: int

    def fields(self) -> dict[str, Any]:
        """The task's fields beside what names the replica set."""
        return {
            "prompt": self.prompt,
            "seed": self.seed,
            "temperature": self.temperature,
            "max_tokens": self.tokens,
            "ignore_eos": True,
            "determinism": "strict",
        }


def _prompt(chance: random.Random, number: int) -> str:
    """Its number makes it a prompt of its own, whatever is drawn."""
    clauses = [
        f"{chance.choice(_SUBJECTS)} {chance.choice(_VERBS)} {chance.choice(_OBJECTS)}"
        for _ in range(chance.randint(1, 2))
    ]
    return f"{number}. {chance.choice(_FORMS).format(' and '.join(clauses))}"
