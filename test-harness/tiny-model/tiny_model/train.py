"""Trains the tiny model on CPU in four stages, within a number of steps or within a time.

    python -m tiny_model.train --vocabulary $OUT/vocabulary.json --out $OUT/run --steps 7400
    python -m tiny_model.train --vocabulary $OUT/vocabulary.json --out $OUT/run --minutes 60

The stages are shares of the whole run, so a short run goes through all of them too. A checkpoint is written
every few minutes; the same command goes on from it. Given steps, the same machine repeats the same run.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from .data import HAIKU, STANDARD, Corpus, Mixture
from .forms import Drills, Example, Examples
from .init import initialise
from .model import Config, Targets, TinyLlama
from .tokenizer import PAD, Tokenizer

BATCH = 48
#: Batches drawn together and sorted by length, so that little is padded.
POOL = 8
LENGTH_STEP = 16
WARM_UP_STEPS = 60
#: The embeddings and norms learn by AdamW at this share of the matrices' rate.
ADAM_SHARE = 0.2
CLIP = 1.0
REPORT_STEPS = 50
CHECKPOINT_SECONDS = 240.0
HELD_OUT_SEED = 900_000


@dataclass(frozen=True, slots=True)
class Stage:
    """A part of the run, up to a share of it."""

    name: str
    until: float
    #: Learning rate of the matrices at the stage's beginning and end, a cosine between them.
    rate: tuple[float, float]
    mixture: Mixture
    drills: Drills


STAGES = (
    Stage("copying", 0.03, (0.012, 0.012), STANDARD, Drills(0.70)),
    Stage("mixture", 0.62, (0.012, 0.006), STANDARD, Drills(0.06)),
    Stage("words", 0.84, (0.006, 0.003), STANDARD, Drills(0.15, words=True)),
    Stage("haiku", 1.00, (0.003, 0.0001), HAIKU, Drills(0.08, words=True)),
)


def stage_at(progress: float) -> tuple[Stage, float]:
    """The stage at this share of the run, and its learning rate there."""
    begin = 0.0
    for stage in STAGES:
        if progress < stage.until:
            break
        begin = stage.until
    within = min(1.0, (progress - begin) / (stage.until - begin)) if stage.until > begin else 1.0
    first, last = stage.rate
    return stage, last + (first - last) * 0.5 * (1 + math.cos(math.pi * within))


@dataclass(slots=True)
class Progress:
    """How far the run is; kept in the checkpoint."""

    step: int = 0
    seconds: float = 0.0
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class Budget:
    """When the run ends: by steps, by time, or by whichever comes first."""

    steps: int | None
    minutes: float | None

    def share(self, progress: Progress) -> float:
        shares = [0.0]
        if self.steps:
            shares.append(progress.step / self.steps)
        if self.minutes:
            shares.append(progress.seconds / (60 * self.minutes))
        return max(shares)


@dataclass(frozen=True, slots=True)
class Batch:
    tokens: Tensor
    targets: Targets


def batches(examples: Examples, stage: Stage, rng: random.Random) -> Iterator[Batch]:
    """A pool of batches of one stage, each of sequences of similar length, in random order."""
    pool = [examples.draw(stage.mixture, stage.drills) for _ in range(BATCH * POOL)]
    pool.sort(key=lambda example: len(example.tokens))
    starts = list(range(0, len(pool), BATCH))
    rng.shuffle(starts)
    for start in starts:
        yield collate(pool[start : start + BATCH])


def collate(examples: Sequence[Example]) -> Batch:
    """The examples as one padded tensor and the positions that count."""
    longest = max(len(example.tokens) for example in examples) - 1
    length = -(-longest // LENGTH_STEP) * LENGTH_STEP
    tokens = torch.full((len(examples), length), PAD, dtype=torch.long)
    positions: list[int] = []
    expected: list[int] = []
    weights: list[float] = []
    for row, example in enumerate(examples):
        tokens[row, : len(example.tokens) - 1] = torch.tensor(example.tokens[:-1])
        for offset, weight in enumerate(example.weights):
            if weight > 0:
                positions.append(row * length + example.output_at + offset - 1)
                expected.append(example.tokens[example.output_at + offset])
                weights.append(weight)
    return Batch(tokens, Targets(torch.tensor(positions), torch.tensor(expected), torch.tensor(weights)))


class Trainer:
    """One run: the network, its optimisers, its place on disk."""

    def __init__(self, tokenizer: Tokenizer, out: Path, seed: int) -> None:
        self.tokenizer = tokenizer
        self.model = TinyLlama(Config(vocabulary=tokenizer.size))
        self.progress = Progress()
        self._out = out
        self._seed = seed
        self._optimisers = optimisers(self.model)
        initialise(self.model, seed)
        out.mkdir(parents=True, exist_ok=True)
        if self.checkpoint.exists():
            self._resume()

    @property
    def checkpoint(self) -> Path:
        return self._out / "checkpoint.pt"

    def run(self, budget: Budget) -> None:
        """Trains until the budget is spent."""
        examples = Examples(self.tokenizer, self._seed + 1000 * self.progress.step)
        rng = random.Random(self._seed + self.progress.step)
        report = Report(self._out / "log.jsonl")
        saved = self.progress.seconds
        while budget.share(self.progress) < 1.0:
            stage, _ = stage_at(budget.share(self.progress))
            for batch in batches(examples, stage, rng):
                _, rate = stage_at(budget.share(self.progress))
                loss = self.step(batch, rate * min(1.0, (self.progress.step + 1) / WARM_UP_STEPS))
                report.add(loss)
                if self.progress.step % REPORT_STEPS == 0:
                    report.write(self, stage, rate)
            if self.progress.seconds - saved > CHECKPOINT_SECONDS:
                self.save()
                saved = self.progress.seconds
        self.save()

    def step(self, batch: Batch, rate: float) -> float:
        """One step of learning at this rate; returns the loss."""
        begin = time.perf_counter()
        for optimiser, share in zip(self._optimisers, (1.0, ADAM_SHARE), strict=True):
            for group in optimiser.param_groups:
                group["lr"] = rate * share
            optimiser.zero_grad(set_to_none=True)
        loss = self.model.loss(batch.tokens, batch.targets)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), CLIP)
        for optimiser in self._optimisers:
            optimiser.step()
        self.progress.step += 1
        self.progress.tokens += batch.tokens.numel()
        self.progress.seconds += time.perf_counter() - begin
        return float(loss.detach())

    @torch.no_grad()
    def copied_exactly(self, count: int = 48) -> float:
        """The share of held-out haiku whose copied parts the model predicts without one wrong byte.

        Where a copy begins is the poem's own choice, so the first byte of each does not count.
        """
        corpus = Corpus(HELD_OUT_SEED)
        forms = Examples(self.tokenizer, HELD_OUT_SEED)
        held_out = [forms.form(corpus.sample("gate"), kind=0.0) for _ in range(count)]
        batch = collate(held_out)
        hidden = self.model(batch.tokens).reshape(-1, self.model.config.width)[batch.targets.positions]
        right = self.model.logits(hidden).argmax(-1) == batch.targets.tokens
        copied = batch.targets.weights > 1.0
        begun = torch.cat([torch.zeros(1, dtype=torch.bool), copied[:-1]])
        passed = right | ~(copied & begun)
        parts = torch.split(passed, [len(example.weights) for example in held_out])
        return sum(bool(part.all()) for part in parts) / count

    def save(self) -> None:
        state = {
            "config": asdict(self.model.config),
            "words": list(self.tokenizer.words),
            "model": self.model.state_dict(),
            "optimisers": [optimiser.state_dict() for optimiser in self._optimisers],
            "progress": asdict(self.progress),
        }
        # A run that is stopped while it writes must find the checkpoint before.
        fresh = self.checkpoint.with_suffix(".new")
        torch.save(state, fresh)
        fresh.replace(self.checkpoint)

    def _resume(self) -> None:
        state = torch.load(self.checkpoint, weights_only=True)
        self.model.load_state_dict(state["model"])
        for optimiser, kept in zip(self._optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(kept)
        self.progress = Progress(**state["progress"])


class Report:
    """Writes a line of figures every some steps."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._losses: list[float] = []

    def add(self, loss: float) -> None:
        self._losses.append(loss)

    def write(self, trainer: Trainer, stage: Stage, rate: float) -> None:
        line = asdict(trainer.progress) | {
            "stage": stage.name,
            "rate": round(rate, 5),
            "loss": round(sum(self._losses) / len(self._losses), 4),
            "copied_exactly": round(trainer.copied_exactly(), 3),
        }
        self._losses.clear()
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        print(json.dumps(line), flush=True)


def optimisers(model: TinyLlama) -> list[torch.optim.Optimizer]:
    """Muon for the matrices, AdamW for the embeddings and norms."""
    named = list(model.named_parameters())
    matrices = [parameter for name, parameter in named if parameter.dim() == 2 and "embed" not in name]
    others = [parameter for name, parameter in named if parameter.dim() < 2 or "embed" in name]
    return [
        torch.optim.Muon(matrices, momentum=0.95, weight_decay=0.02),
        torch.optim.AdamW(others, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def load(checkpoint: Path) -> tuple[TinyLlama, Tokenizer]:
    """The network and the tokenizer of a checkpoint."""
    state = torch.load(checkpoint, weights_only=True)
    model = TinyLlama(Config(**state["config"]))
    model.load_state_dict(state["model"])
    return model.eval(), Tokenizer(state["words"])


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the tiny model.")
    parser.add_argument("--vocabulary", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder of the checkpoint and the log")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--threads", type=int, default=2, help="1 where the cores are shared")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.steps is None and arguments.minutes is None:
        parser.error("say when to stop: `--steps 7400`, `--minutes 60`, or both")
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    trainer = Trainer(Tokenizer.load(arguments.vocabulary), arguments.out, arguments.seed)
    trainer.run(Budget(arguments.steps, arguments.minutes))


if __name__ == "__main__":
    main()
