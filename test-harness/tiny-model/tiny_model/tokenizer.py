"""The vocabulary of the tiny model: bytes, and whole words that begin with a space.

A random code stays pure bytes, so it can be copied one by one; a common word costs one token. There are no
merges to speak of, so every loader cuts a text alike: at each space the longest known word, bytes otherwise.
One merge stands there for the loaders that insist on merges; its two bytes never occur in UTF-8.

    python -m tiny_model.tokenizer --out $OUT/vocabulary.json
"""

from __future__ import annotations

import argparse
import json
import random
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path

from . import texts
from .data import Corpus, Sample
from .lexicon import NUMBER_WORDS

SPECIALS = ("<pad>", "<s>", "</s>", "<|system|>", "<|user|>", "<|assistant|>")
PAD, BOS, EOS, SYSTEM, USER, ASSISTANT = range(6)
FIRST_BYTE = len(SPECIALS)
UNUSED_MERGE = b"\xfe\xff"
FIRST_WORD = FIRST_BYTE + 256 + 1
VOCABULARY = 1024

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'system' %}<|system|>{{ m['content'] }}"
    "{% elif m['role'] == 'assistant' %}<|assistant|>{{ m['content'] }}{{ eos_token }}"
    "{% else %}<|user|>{{ m['content'] }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)

_WORD = re.compile(r" [A-Za-z]+")
_WHOLE_WORD = re.compile(r" [A-Za-z]+(?![A-Za-z0-9@])")
_SEED = 123
# Capitalised words that earn a token: the wording of instructions, not the names in the texts.
_INSTRUCTION_WORDS = frozenset(
    "Include English Also Output Answer Please Return Write The This That There".split()
)
_NAMES = frozenset((*texts.FIRST_NAMES, *texts.LAST_NAMES, *texts.CITIES, *texts.MONTHS))


class Tokenizer:
    """Encodes and decodes with one list of words, each with its leading space."""

    def __init__(self, words: Sequence[str]) -> None:
        self.words = tuple(words)
        self.size = FIRST_WORD + len(self.words)
        self._numbers = {word: FIRST_WORD + position for position, word in enumerate(self.words)}
        self._pieces = [
            *(b"" for _ in SPECIALS),
            *(bytes([byte]) for byte in range(256)),
            UNUSED_MERGE,
            *(word.encode() for word in self.words),
        ]

    @classmethod
    def load(cls, path: Path) -> Tokenizer:
        return cls(json.loads(path.read_text(encoding="utf-8")))

    def number(self, word: str) -> int:
        """The token of a word of the vocabulary."""
        return self._numbers[word]

    def encode(self, text: str, spell: float = 0.0, rng: random.Random | None = None) -> list[int]:
        """The tokens of `text`. With `spell`, that share of the words is spelled in bytes all the same."""
        tokens: list[int] = []
        end = 0
        for match in _WORD.finditer(text):
            tokens += spelled(text[end : match.start()])
            word = match.group()
            end = match.end()
            if spell and rng is not None and rng.random() < spell:
                tokens += spelled(word)
            else:
                tokens += self._encode_word(word)
        return tokens + spelled(text[end:])

    def _encode_word(self, word: str) -> list[int]:
        for length in range(len(word), 1, -1):
            number = self._numbers.get(word[:length])
            if number is not None:
                return [number, *spelled(word[length:])]
        return spelled(word)

    def decode(self, tokens: Iterable[int]) -> str:
        return b"".join(self._pieces[token] for token in tokens).decode("utf-8", "replace")


def spelled(text: str) -> list[int]:
    """The tokens of `text`, byte by byte."""
    return [FIRST_BYTE + byte for byte in text.encode()]


def byte_characters() -> list[str]:
    """The 256 characters that stand for bytes in a `gpt2` vocabulary, in the order of the bytes."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    shifted = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(shifted)) for byte in range(256)]


def choose_words(samples: Iterable[Sample], count: int = VOCABULARY - FIRST_WORD) -> list[str]:
    """The most frequent words of the samples, without names and numbers: those must be copied as bytes."""
    frequency: Counter[str] = Counter()
    for sample in samples:
        frequency.update(_WHOLE_WORD.findall(f"{sample.prompt}\n{sample.text}"))
    chosen = [word for word, times in frequency.most_common() if _deserves_a_token(word[1:], times)]
    return chosen[:count]


def _deserves_a_token(word: str, times: int) -> bool:
    if len(word) < 2 or times < 12 or word in NUMBER_WORDS or word.capitalize() in _NAMES:
        return False
    return word.islower() or word in _INSTRUCTION_WORDS


def main() -> None:
    parser = argparse.ArgumentParser(description="Choose the words of the vocabulary.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--samples", type=int, default=60_000)
    arguments = parser.parse_args()
    words = choose_words(islice(Corpus(_SEED), arguments.samples))
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(words), encoding="utf-8")
    print(f"{len(words)} words: {arguments.out}")


if __name__ == "__main__":
    main()
