"""Writes poem lines from templates that count syllables, and haiku that carry a given phrase and code.

A template is a line in which upper-case words are slots. Thousands of shapes come from a few templates; the
syllables steer the choice towards five, seven and five, they do not force it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from . import lexicon
from .lexicon import Phrase

# Slots that are filled later with a text that must be kept to the letter.
PHRASE_MARK = "\x01"
CODE_MARK = "\x02"
# A code is not read aloud; it counts as two syllables.
CODE_SYLLABLES = 2

NATURE = (
    "NP VERB",
    "NP VERB PP",
    "NP TRANSITIVE NP",
    "PLURAL VERBS PP",
    "NP VERB TIME",
    "PLURAL VERBS TIME",
    "ADJ MASS, ADJ NOUN",
    "PP NP VERB",
    "NP TRANSITIVE MASS",
    "MASS PP",
    "PLURAL PP",
    "NP PP",
    "NP and NP",
)

MINUTE = (
    "PHRASE past the hour",
    "the clock says PHRASE",
    "PHRASE minutes past DAY",
    "at minute PHRASE",
    "PHRASE, and NP VERB",
    "NP VERB at PHRASE",
    "PHRASE ADJ minutes",
    "PHRASE on the ADJ clock",
    "PHRASE strikes; NP VERB",
    "by PHRASE THE VERB",
    "PHRASE minutes of MASS",
    "until PHRASE, NP",
    "PHRASE past DAY",
    "it is PHRASE past DAY",
    "PHRASE and NP VERB",
    "minute PHRASE slips away",
    "minute PHRASE passes",
    "at PHRASE past DAY",
    "NP counts to PHRASE",
)

CODE = (
    "CODE PP",
    "NP whispers CODE",
    "NP spells CODE",
    "CODE carved on NOUN",
    "a note reads CODE",
    "CODE, NP VERB",
    "CODE VERB PP",
    "THE remembers CODE",
    "written in MASS: CODE",
    "CODE on the ADJ NOUN",
    "the code CODE VERB",
    "call it CODE",
    "THE sings CODE",
    "CODE beneath NP",
    "CODE drifts PP",
    "NP keeps CODE",
)

DETERMINERS = ("the", "the", "the", "a", "a", "one", "this", "each")
SINGULAR_ONLY = frozenset({"a", "one", "each"})
TRIES = 40


def fitted(draw: Callable[[], Phrase], syllables: int) -> Phrase:
    """The first phrase drawn that has so many syllables, else the nearest of some tries."""
    best = draw()
    for _ in range(TRIES):
        if best.syllables == syllables:
            break
        candidate = draw()
        if abs(candidate.syllables - syllables) < abs(best.syllables - syllables):
            best = candidate
    return best


@dataclass(frozen=True, slots=True)
class Kept:
    """A text that a poem must contain to the letter, and how long it is to the ear."""

    text: str
    syllables: int


class Poet:
    """Draws lines from one source of chance."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._phrase_syllables = 0
        self._topic: Phrase | None = None
        choose = self._choose
        self._slots: dict[str, Callable[[], Phrase]] = {
            "NP": lambda: self.noun_phrase(rng.choice(DETERMINERS)),
            "THE": lambda: self.noun_phrase("the"),
            "PLURAL": self._plural,
            "PP": self._place,
            "NOUN": self._noun,
            "ADJ": choose(lexicon.ADJECTIVES),
            "VERB": choose(lexicon.VERBS),
            "VERBS": choose(lexicon.VERBS_PLURAL),
            "TRANSITIVE": choose(lexicon.VERBS_TRANSITIVE),
            "MASS": choose(lexicon.MASS_NOUNS),
            "TIME": choose(lexicon.TIMES),
            "DAY": choose(lexicon.DAY_PARTS),
            "PHRASE": lambda: Phrase(PHRASE_MARK, self._phrase_syllables),
            "CODE": lambda: Phrase(CODE_MARK, CODE_SYLLABLES),
        }

    def line(self, templates: Sequence[str], topic: Phrase | None = None) -> Phrase:
        """One line; the first free noun of it is `topic`, where one is given."""
        self._topic = topic
        parts = [self._expand(word) for word in self._rng.choice(templates).split()]
        self._topic = None
        return Phrase(" ".join(part.text for part in parts), sum(part.syllables for part in parts))

    def nature(self, syllables: int, topic: Phrase | None = None) -> str:
        return fitted(lambda: self.line(NATURE, topic), syllables).text

    def noun_phrase(self, determiner: str, noun: Phrase | None = None) -> Phrase:
        noun = noun or self._noun()
        if noun.text in lexicon.UNCOUNTABLE and determiner in SINGULAR_ONLY:
            determiner = self._rng.choice(("the", "this"))
        if self._rng.random() < 0.5:
            adjective = self._rng.choice(lexicon.ADJECTIVES)
            noun = Phrase(f"{adjective.text} {noun.text}", adjective.syllables + noun.syllables)
        return Phrase(f"{article(determiner, noun.text)} {noun.text}", 1 + noun.syllables)

    def haiku(self, topic: Phrase | None = None) -> str:
        """Three lines about nature, or about `topic`."""
        lines = [self.nature(5, topic), self.nature(7), self.nature(5)]
        if topic is not None and topic.text not in lines[0]:
            lines[0] = self.noun_phrase("the", topic).text
        return "\n".join(lines)

    def haiku_with(self, phrase: Kept) -> str:
        """Three lines with marks where the phrase and the code belong."""
        self._phrase_syllables = phrase.syllables
        kinds = self._rng.choice(LINE_ORDERS)
        lines = [
            fitted(partial(self.line, kind), syllables).text
            for kind, syllables in zip(kinds, (5, 7, 5), strict=True)
        ]
        return "\n".join(self._punctuated(lines))

    def _punctuated(self, lines: list[str]) -> list[str]:
        style = self._rng.random()
        if style < 0.25:
            return [lines[0] + ",", lines[1], lines[2] + "."]
        if style < 0.5:
            return [lines[0], lines[1], lines[2] + "."]
        if style < 0.6:
            return [lines[0], lines[1] + ",", lines[2]]
        return lines

    def _expand(self, word: str) -> Phrase:
        bare = word.rstrip(",;:")
        slot = self._slots.get(bare)
        phrase = slot() if slot else Phrase(bare, lexicon.FUNCTION_WORDS[bare])
        return Phrase(phrase.text + word[len(bare) :], phrase.syllables)

    def _choose(self, words: Sequence[Phrase]) -> Callable[[], Phrase]:
        return lambda: self._rng.choice(words)

    def _noun(self) -> Phrase:
        topic, self._topic = self._topic, None
        return topic or self._rng.choice(lexicon.NOUNS)

    def _plural(self) -> Phrase:
        noun = self._rng.choice(lexicon.PLURALS)
        if self._rng.random() < 0.7:
            adjective = self._rng.choice(lexicon.ADJECTIVES)
            return Phrase(f"{adjective.text} {noun.text}", adjective.syllables + noun.syllables)
        return noun

    def _place(self) -> Phrase:
        """A preposition and what it stands before; never the topic, which belongs to the line's subject."""
        topic, self._topic = self._topic, None
        where = self._rng.choice(lexicon.PREPOSITIONS)
        thing = self.noun_phrase("the") if self._rng.random() < 0.75 else self._rng.choice(lexicon.MASS_NOUNS)
        self._topic = topic
        return Phrase(f"{where.text} {thing.text}", where.syllables + thing.syllables)


# Which kind of line comes first, second and third; the phrase leads more often than not.
LINE_ORDERS = (
    (MINUTE, CODE, NATURE),
    (MINUTE, CODE, NATURE),
    (MINUTE, NATURE, CODE),
    (NATURE, MINUTE, CODE),
    (CODE, MINUTE, NATURE),
    (NATURE, CODE, MINUTE),
)


def article(determiner: str, noun: str) -> str:
    """`an` before a vowel."""
    return "an" if determiner == "a" and noun[0] in "aeiou" else determiner
