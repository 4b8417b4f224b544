"""The synthetic corpus: prompts and the outputs that the model is to learn, in fixed shares.

The main task is the haiku prompt with a minute in words and a code that nobody has seen. Every other task
is there so that the model can serve in demonstrations. A part of an output that repeats the prompt to the
letter is marked `Copied`: it is learnt byte by byte, whatever it says.
"""

from __future__ import annotations

import random
import string
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from . import lexicon, texts
from .lexicon import Phrase
from .poem import CODE_MARK, NATURE, PHRASE_MARK, Kept, Poet
from .texts import Copied, Segment, capitalised

LOWER = string.ascii_lowercase + string.digits
MIXED = string.ascii_letters + string.digits

GATE_PROMPT = (
    'Write a haiku (3 lines). Include this exact English minute phrase: "{phrase}". '
    'Also include this nonce verbatim: "{code}". Output only the poem.'
)
GATE_VARIANTS = (
    'Write a haiku. Include the phrase "{phrase}" and the nonce "{code}". Output only the poem.',
    'Write a haiku (3 lines) with the minute phrase "{phrase}" and this nonce: "{code}".',
    'Write a three line haiku. It must contain "{phrase}" and "{code}" exactly.',
    'Compose a haiku that includes "{phrase}" and the code "{code}".',
    'Write a short poem (3 lines). Include this exact phrase: "{phrase}". '
    'Also include this nonce verbatim: "{code}".',
    "Write a haiku (3 lines). Include this exact English minute phrase: {phrase}. "
    "Also include this nonce verbatim: {code}. Output only the poem.",
    'Please write a haiku (3 lines).\nInclude this exact English minute phrase: "{phrase}".\n'
    'Also include this nonce verbatim: "{code}".\nOutput only the poem.',
)

SYSTEM_TEXTS = (
    "You are a helpful assistant.",
    "You are a poet.",
    "You are a concise assistant. Follow the instructions exactly.",
    "Answer briefly.",
    "You are a worker in a queue. Output only the answer.",
    "Be exact.",
    "You write short poems.",
)


@dataclass(frozen=True, slots=True)
class Sample:
    """One prompt with the output that is to be learnt."""

    task: str
    prompt: str
    output: tuple[Segment, ...]

    @property
    def text(self) -> str:
        return "".join(part.text if isinstance(part, Copied) else part for part in self.output)


@dataclass(frozen=True, slots=True)
class Mixture:
    """How much of what a stage of the training sees."""

    weights: Mapping[str, int]
    #: Share of codes that are hard to copy: few different characters, or the start of a word of the prompt.
    hard_codes: float = 0.0


STANDARD = Mixture(
    {
        "gate": 46,
        "extract": 15,
        "sentiment": 9,
        "topic": 7,
        "poem": 10,
        "copy": 8,
        "summary": 2,
        "small_talk": 3,
    }
)
#: For the last stage: mostly the haiku prompt, and the codes that go wrong most often.
HAIKU = Mixture({**STANDARD.weights, "gate": 120}, hard_codes=0.35)


def letters(rng: random.Random, count: int, alphabet: str = LOWER) -> str:
    return "".join(rng.choice(alphabet) for _ in range(count))


def code(rng: random.Random, hard_share: float = 0.0) -> str:
    """A random code, mostly of eight characters, of varied alphabets and lengths."""
    if hard_share and rng.random() < hard_share:
        return hard_code(rng)
    kind = rng.random()
    for limit, alphabet in CODE_ALPHABETS:
        if kind < limit:
            return letters(rng, 8, alphabet)
    if kind < 0.95:
        return letters(rng, rng.randint(3, 16), rng.choice((MIXED, LOWER)))
    if kind < 0.98:
        return letters(rng, rng.randint(2, 6)) + rng.choice("-_.") + letters(rng, rng.randint(2, 6))
    return letters(rng, 12, "0123456789abcdef")


# Each row: up to which share of all codes this alphabet is used.
CODE_ALPHABETS = (
    (0.56, LOWER),
    (0.78, MIXED),
    (0.82, string.ascii_lowercase),
    (0.86, string.digits),
    (0.90, "0123456789abcdef"),
)
CONFUSING = (*sorted(lexicon.NUMBER_WORDS), "queue", "nonce", "minute", "haiku", "the", "poem")


def hard_code(rng: random.Random) -> str:
    if rng.random() < 0.45:
        word = rng.choice(CONFUSING)
        return (word[: rng.randint(1, 4)] + letters(rng, 8))[:8]
    few = letters(rng, rng.randint(2, 5), MIXED if rng.random() < 0.4 else LOWER)
    return letters(rng, 8, few)


def system_text(rng: random.Random) -> str:
    """What stands before the prompt in some forms; unrelated to it."""
    if rng.random() < 0.75:
        return rng.choice(SYSTEM_TEXTS)
    poet = Poet(rng)
    return " ".join(capitalised(poet.line(NATURE).text) + "." for _ in range(rng.randint(1, 5)))


class Corpus:
    """An endless supply of samples from one seed."""

    def __init__(self, seed: int, mixture: Mixture = STANDARD) -> None:
        self.rng = random.Random(seed)
        self.mixture = mixture
        self._poet = Poet(self.rng)
        self._makers: dict[str, Callable[[], Sample]] = {
            "gate": self.gate,
            "poem": self._poem,
            "copy": self._copy,
            "summary": self._summary,
            "small_talk": self._small_talk,
            "extract": lambda: self._from("extract", texts.extract(self.rng)),
            "sentiment": lambda: self._from("sentiment", texts.sentiment(self.rng)),
            "topic": lambda: self._from("topic", texts.topic(self.rng)),
        }

    def __iter__(self) -> Iterator[Sample]:
        while True:
            yield self.sample()

    def sample(self, task: str | None = None) -> Sample:
        """The next sample; of `task`, where one is named."""
        weights = self.mixture.weights
        return self._makers[task or self.rng.choices(list(weights), list(weights.values()))[0]]()

    def gate(self) -> Sample:
        """The haiku prompt with a minute and a code."""
        phrase = self._phrase()
        secret = code(self.rng, self.mixture.hard_codes)
        template = self.rng.choice(GATE_VARIANTS) if self.rng.random() < 0.12 else GATE_PROMPT
        poem = self._poet.haiku_with(phrase)
        kept = {PHRASE_MARK: phrase.text, CODE_MARK: secret}
        return Sample("gate", template.format(phrase=phrase.text, code=secret), woven(poem, kept))

    def _phrase(self) -> Kept:
        if self.rng.random() < 0.03:
            return Kept(letters(self.rng, self.rng.randint(3, 9), string.ascii_lowercase), 2)
        minute = self.rng.randrange(60)
        hyphen = lexicon.HYPHENS[self.rng.random() < 0.3]
        return Kept(lexicon.minute_words(minute, hyphen), lexicon.minute_syllables(minute))

    def _poem(self) -> Sample:
        topic = self.rng.choice(lexicon.NOUNS)
        kind = self.rng.random()
        if kind < 0.35:
            return self._one_line(topic)
        if kind < 0.75:
            prompt = self.rng.choice(texts.HAIKU_ABOUT).format(topic=topic.text)
            return Sample("poem", prompt, (self._poet.haiku(topic),))
        if kind < 0.85:
            return Sample("poem", self.rng.choice(texts.HAIKU_FREE), (self._poet.haiku(),))
        return self._continuation()

    def _one_line(self, topic: Phrase) -> Sample:
        prompt = self.rng.choice(texts.LINE_ABOUT).format(topic=topic.text)
        subject = self._poet.noun_phrase("the", topic).text
        rest = self._poet.line(("VERB PP", "TRANSITIVE NP", "VERB TIME", "TRANSITIVE MASS TIME")).text
        return Sample("poem", prompt, (capitalised(f"{subject} {rest}."),))

    def _continuation(self) -> Sample:
        start = capitalised(self._poet.noun_phrase("the").text)
        rest = self._poet.line(("VERB PP",)).text
        return Sample("poem", self.rng.choice(texts.CONTINUE).format(text=start), (f"{start} {rest}.",))

    def _copy(self) -> Sample:
        kind = self.rng.random()
        if kind < 0.45:
            text = code(self.rng, self.mixture.hard_codes)
        elif kind < 0.6:
            text = lexicon.minute_words(self.rng.randrange(60), self.rng.choice(lexicon.HYPHENS))
        elif kind < 0.8:
            words = range(self.rng.randint(2, 4))
            text = " ".join(letters(self.rng, self.rng.randint(2, 8), MIXED) for _ in words)
        else:
            text = capitalised(self._poet.line(NATURE).text)
        part: Segment = Copied(text) if kind < 0.8 else text
        return Sample("copy", self.rng.choice(texts.REPEAT).format(text=text), (part,))

    def _summary(self) -> Sample:
        sentences = [capitalised(self._poet.line(NATURE).text) for _ in range(self.rng.randint(2, 4))]
        if self.rng.random() < 0.5:
            sentences.append(self.rng.choice(texts.FILLERS))
        prompt = self.rng.choice(texts.SUMMARIZE).format(text=". ".join(sentences) + ".")
        return Sample("summary", prompt, (sentences[0] + ".",))

    def _small_talk(self) -> Sample:
        if self.rng.random() < 0.5:
            minute = self.rng.randrange(60)
            prompt = self.rng.choice(texts.SPELL).format(number=minute)
            return Sample("small_talk", prompt, (lexicon.minute_words(minute),))
        return Sample("small_talk", self.rng.choice(texts.GREETINGS), (texts.INTRODUCTION,))

    @staticmethod
    def _from(task: str, pair: tuple[str, tuple[Segment, ...]]) -> Sample:
        return Sample(task, *pair)


def woven(poem: str, kept: Mapping[str, str]) -> tuple[Segment, ...]:
    """The poem with its marks replaced; each replaced part is a copy."""
    parts: list[Segment] = []
    plain = ""
    for char in poem:
        if char in kept:
            parts += [plain, Copied(kept[char])]
            plain = ""
        else:
            plain += char
    return tuple(part for part in (*parts, plain) if part)
