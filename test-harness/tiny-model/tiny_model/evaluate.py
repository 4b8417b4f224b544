"""Measures a GGUF through the real llama.cpp server: the haiku acceptance, the other tasks, the variety.

    python -m tiny_model.evaluate --gguf $OUT/orchqueue-tiny-1.4m-f16.gguf --out $OUT/evaluation.json
    python -m tiny_model.evaluate --gguf … --out … --parity $OUT/run/checkpoint.pt
    python -m tiny_model.evaluate --gguf … --document python/orchqueue/models/orchqueue-tiny.json

All prompts are drawn from a seed that no training run uses, and their codes are random: no model can have
seen them. The figures are counts; texts are not written down. Only `--parity` needs torch.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import string
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from . import lexicon
from .data import GATE_PROMPT, LOWER, MIXED, Corpus, letters
from .engine import Engine

SEED = 77_000_000
UNSEEN_SYSTEM_TEXT = "You are a careful assistant for the night queue. Follow every rule."
OTHER_TASKS = ("sentiment", "topic", "extract", "copy", "summary", "small_talk")
TASK_PROMPTS = 100
PARITY_PROMPTS = 20

Ask = Callable[[str, int], str]


@dataclass(frozen=True, slots=True)
class Gate:
    """One prompt of the haiku acceptance."""

    phrase: str
    code: str

    @property
    def prompt(self) -> str:
        return GATE_PROMPT.format(phrase=self.phrase, code=self.code)

    def accepts(self, answer: str) -> bool:
        return filled_lines(answer) >= 3 and self.phrase in answer and self.code in answer

    def shape(self, answer: str) -> str:
        """The answer without what the prompt prescribed, to count different poems."""
        return answer.replace(self.code, "#").replace(self.phrase, "@")


@dataclass(frozen=True, slots=True)
class HaikuFigures:
    """What came of some prompts of the haiku acceptance."""

    form: str
    temperature: float
    codes: str
    prompts: int
    accepted: int
    phrase_kept: int
    code_kept: int
    three_lines: int
    different_poems: int


@dataclass(frozen=True, slots=True)
class TaskFigures:
    """How many answers of another task were exactly right, at temperature 0."""

    task: str
    prompts: int
    right: int


@dataclass(frozen=True, slots=True)
class Scope:
    """Which prompts are drawn, and how many of each series."""

    seed: int = SEED
    prompts: int = 200
    #: Print refused poems to stderr.
    show: bool = False


@dataclass(frozen=True, slots=True)
class Condition:
    """How a series of haiku prompts is put."""

    form: str
    temperature: float
    ask: Ask
    codes: str = "mixed"
    prompts: int = 200


# What codes are made of: name, then the alphabets that take turns.
CODE_ALPHABETS = {
    "mixed": (LOWER, MIXED),
    "lower-case letters": (string.ascii_lowercase,),
    "digits and hex": (string.digits, "0123456789abcdef"),
}


def filled_lines(text: str) -> int:
    return sum(1 for line in text.split("\n") if line.strip())


def gates(rng: random.Random, count: int, codes: str = "mixed") -> list[Gate]:
    """Fresh prompts: any minute, a quarter of them with the hyphen that does not break a line."""
    alphabets = CODE_ALPHABETS[codes]
    made = []
    for number in range(count):
        hyphen = lexicon.HYPHENS[number % 4 == 3]
        phrase = lexicon.minute_words(rng.randrange(60), hyphen)
        made.append(Gate(phrase, letters(rng, 8, alphabets[number % len(alphabets)])))
    return made


def conditions(engine: Engine, prompts: int) -> list[Condition]:
    def chat(temperature: float) -> Ask:
        return lambda prompt, seed: engine.chat(prompt, seed, temperature=temperature)

    def raw(temperature: float) -> Ask:
        return lambda prompt, seed: engine.complete(prompt, seed, temperature=temperature)

    def told(prompt: str, seed: int) -> str:
        return engine.chat(prompt, seed, system=UNSEEN_SYSTEM_TEXT)

    return [
        Condition("chat", 0.0, chat(0.0), prompts=prompts),
        Condition("raw prompt", 0.0, raw(0.0), prompts=prompts),
        Condition("chat", 0.7, chat(0.7), prompts=prompts),
        Condition("raw prompt", 0.7, raw(0.7), prompts=prompts),
        Condition("chat, unseen system text", 0.7, told, prompts=prompts),
        Condition("chat", 1.0, chat(1.0), prompts=prompts),
        Condition("chat", 0.7, chat(0.7), "lower-case letters", prompts),
        Condition("chat", 0.7, chat(0.7), "digits and hex", prompts),
    ]


def haiku_figures(condition: Condition, rng: random.Random, show: bool) -> HaikuFigures:
    """Puts the prompts and counts."""
    answered = [
        (gate, condition.ask(gate.prompt, rng.randrange(2**31)))
        for gate in gates(rng, condition.prompts, condition.codes)
    ]
    if show:
        for gate, answer in answered:
            if not gate.accepts(answer):
                print(f"refused: {gate.phrase!r} {gate.code!r}\n{answer!r}", file=sys.stderr)
    return HaikuFigures(
        form=condition.form,
        temperature=condition.temperature,
        codes=condition.codes,
        prompts=len(answered),
        accepted=sum(gate.accepts(answer) for gate, answer in answered),
        phrase_kept=sum(gate.phrase in answer for gate, answer in answered),
        code_kept=sum(gate.code in answer for gate, answer in answered),
        three_lines=sum(filled_lines(answer) == 3 for _, answer in answered),
        different_poems=len({gate.shape(answer) for gate, answer in answered}),
    )


def task_figures(engine: Engine, task: str, seed: int) -> TaskFigures:
    corpus = Corpus(seed + 1 + OTHER_TASKS.index(task))
    right = 0
    for _ in range(TASK_PROMPTS):
        sample = corpus.sample(task)
        right += engine.chat(sample.prompt, 0, temperature=0.0) == sample.text
    return TaskFigures(task, TASK_PROMPTS, right)


def poems_of_seeds(engine: Engine, seeds: Sequence[int]) -> int:
    """How many different poems one prompt gets from these seeds."""
    (gate,) = gates(random.Random(SEED), 1)
    return len({engine.chat(gate.prompt, seed) for seed in seeds})


def parity(engine: Engine, checkpoint: Path) -> int:
    """How many greedy answers of llama.cpp equal the trained network's."""
    from .tokenizer import ASSISTANT, BOS, EOS, USER
    from .train import load

    model, tokenizer = load(checkpoint)
    equal = 0
    for gate in gates(random.Random(SEED), PARITY_PROMPTS):
        prompt = [BOS, USER, *tokenizer.encode(gate.prompt), ASSISTANT]
        expected = tokenizer.decode(model.continue_greedily(prompt, EOS))
        equal += engine.chat(gate.prompt, 0, temperature=0.0) == expected
    return equal


def evaluate(gguf: Path, scope: Scope) -> dict[str, object]:
    """All figures of one file."""
    rng = random.Random(scope.seed)
    with Engine(gguf) as engine:
        haiku = []
        for condition in conditions(engine, scope.prompts):
            haiku.append(haiku_figures(condition, rng, scope.show))
            print(haiku[-1], file=sys.stderr)
        tasks = [task_figures(engine, task, scope.seed) for task in OTHER_TASKS]
        return {
            "engine": f"llama.cpp server, {Engine.version}",
            "gguf_sha256": hashlib.sha256(gguf.read_bytes()).hexdigest(),
            "sampler_profile_version": "v1",
            "seed": scope.seed,
            "haiku": [asdict(figures) for figures in haiku],
            "tasks": [asdict(figures) for figures in tasks],
            "different_poems_of_20_seeds": poems_of_seeds(engine, range(20)),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure a tiny model through the real llama.cpp server.")
    parser.add_argument("--gguf", type=Path, required=True)
    parser.add_argument("--out", type=Path, help="write the figures as a JSON document")
    parser.add_argument("--document", type=Path, help="put the figures into this model's catalog document")
    parser.add_argument("--prompts", type=int, default=200, help="haiku prompts of each series")
    parser.add_argument("--seed", type=int, default=SEED, help="of the prompts")
    parser.add_argument("--show", action="store_true", help="print refused poems to stderr")
    parser.add_argument("--parity", type=Path, metavar="CHECKPOINT", help="compare with the trained network")
    arguments = parser.parse_args()
    figures = evaluate(arguments.gguf, Scope(arguments.seed, arguments.prompts, arguments.show))
    if arguments.parity:
        with Engine(arguments.gguf) as engine:
            equal = parity(engine, arguments.parity)
        figures["greedy_parity"] = {"prompts": PARITY_PROMPTS, "equal": equal}
    if arguments.out:
        write_json(arguments.out, figures)
    if arguments.document:
        document = json.loads(arguments.document.read_text(encoding="utf-8"))
        write_json(arguments.document, {**document, "evaluation": figures})
    print(json.dumps(figures, indent=2))


def write_json(path: Path, document: Mapping[str, object]) -> None:
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
