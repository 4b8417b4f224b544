"""How a sample becomes a sequence of tokens: the forms in which an engine sees a prompt, and copying drills.

The loss counts on the output only. A copied byte weighs twice, because one wrong byte spoils the answer.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from itertools import pairwise

from .data import Corpus, Mixture, Sample, code, system_text
from .texts import Copied
from .tokenizer import ASSISTANT, BOS, EOS, SYSTEM, USER, Tokenizer, spelled

LONGEST = 320
COPIED_WEIGHT = 2.0
# Some sequences have some words of the prompt spelled in bytes, so that no word is seen as one token only.
SPELLING_SHARE, SPELLED_WORDS = 0.2, 0.12


@dataclass(frozen=True, slots=True)
class Example:
    """One training sequence."""

    tokens: list[int]
    #: Position of the first token of the output.
    output_at: int
    #: Weight of each output token in the loss; zero where it cannot be known.
    weights: list[float]


@dataclass(frozen=True, slots=True)
class Drills:
    """How much pure copying is practised beside the mixture."""

    share: float
    #: Also with known words, which is what a poem's topic and a summary need.
    words: bool = False


class Examples:
    """An endless supply of sequences from one seed."""

    def __init__(self, tokenizer: Tokenizer, seed: int) -> None:
        self._tokenizer = tokenizer
        self._corpus = Corpus(seed)
        self._rng = random.Random(seed + 1)

    def draw(self, mixture: Mixture, drills: Drills) -> Example:
        while True:
            if self._rng.random() < drills.share:
                example = self._drill(drills, mixture.hard_codes)
            else:
                self._corpus.mixture = mixture
                example = self.form(self._corpus.sample())
            if len(example.tokens) <= LONGEST:
                return example

    def form(self, sample: Sample, kind: float | None = None) -> Example:
        """The sample in one of five forms; `kind` below 0.4 is the plain chat."""
        encode = self._tokenizer.encode
        rng = self._rng
        kind = rng.random() if kind is None else kind
        prompt = encode(sample.prompt, SPELLED_WORDS if rng.random() < SPELLING_SHARE else 0.0, rng)
        lead = ""
        if kind < 0.40:
            head = [BOS, USER, *prompt, ASSISTANT]
        elif kind < 0.58:
            head = [BOS, SYSTEM, *encode(system_text(rng)), USER, *prompt, ASSISTANT]
        elif kind < 0.82:
            head, lead = [BOS, *prompt], "\n"
        elif kind < 0.95:
            head = [BOS, *prompt, *spelled("\n")]
        else:
            start = [BOS] if rng.random() < 0.5 else []
            gap = rng.choice(("\n", "\n\n"))
            head = [*start, *encode(f"{system_text(rng)}\n{sample.prompt}{gap}")]
        return self._with_output(head, lead, sample)

    def _with_output(self, head: list[int], lead: str, sample: Sample) -> Example:
        output = spelled(lead)
        weights = [1.0] * len(output)
        for part in sample.output:
            copied = isinstance(part, Copied)
            tokens = spelled(part.text) if isinstance(part, Copied) else self._tokenizer.encode(part)
            output += tokens
            weights += [COPIED_WEIGHT if copied else 1.0] * len(tokens)
        return Example([*head, *output, EOS], len(head), [*weights, 1.0])

    def _drill(self, drills: Drills, hard_codes: float) -> Example:
        """Random pieces, then the same pieces in another order."""
        rng = self._rng
        if drills.words and rng.random() < 0.6:
            pieces = [self._random_words() for _ in range(rng.randint(1, 3))]
            gap = spelled(rng.choice((".", ",", "\n", '"', ";")))
        else:
            pieces = [spelled(code(rng, hard_codes)) for _ in range(rng.randint(1, 4))]
            gap = spelled(rng.choice((" ", "\n", ", ", '" "', "; ")))
        head = [BOS, *_joined(pieces, gap), ASSISTANT]
        shuffled = rng.sample(pieces, len(pieces))
        output = [*_joined(shuffled, gap), EOS]
        weights = [1.0] * len(output)
        if len(pieces) > 1:
            # Which piece comes next cannot be known, so its first token does not count.
            start = 0
            for piece in shuffled:
                weights[start] = 0.0
                start += len(piece) + len(gap)
        return Example([*head, *output], len(head), weights)

    def _random_words(self) -> list[int]:
        rng = self._rng
        return [self._tokenizer.number(rng.choice(self._tokenizer.words)) for _ in range(rng.randint(2, 7))]


def _joined(pieces: list[list[int]], gap: list[int]) -> list[int]:
    joined = list(pieces[0])
    for _, piece in pairwise(pieces):
        joined += [*gap, *piece]
    return joined
