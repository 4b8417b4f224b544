"""The shipped model on the real llama.cpp server answers fresh haiku prompts as the acceptance wants."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from orchqueue import models

sys.path.insert(0, str(Path(__file__).parents[2] / "test-harness" / "tiny-model"))

from tiny_model import data, engine, evaluate

# Another seed than that of the published figures: these prompts are fresh ones too.
SEED = 78_000_000
PROMPTS = 60


@pytest.fixture(scope="module")
def replica() -> Iterator[engine.Engine]:
    with engine.Engine(models.path("orchqueue-tiny")) as running:
        yield running


@pytest.mark.parametrize(("temperature", "least"), [(0.0, 59), (0.7, 58)])
@pytest.mark.parametrize("form", ["chat", "raw prompt"])
def test_fresh_prompts_are_answered_acceptably(
    replica: engine.Engine, form: str, temperature: float, least: int
) -> None:
    rng = data.Corpus(SEED).rng
    ask = replica.chat if form == "chat" else replica.complete
    accepted = sum(
        gate.accepts(ask(gate.prompt, rng.randrange(2**31), temperature=temperature))
        for gate in evaluate.gates(rng, PROMPTS)
    )
    assert accepted >= least


def test_the_same_seed_repeats_the_poem_and_other_seeds_write_others(replica: engine.Engine) -> None:
    (gate,) = evaluate.gates(data.Corpus(SEED).rng, 1)
    first, again = (replica.chat(gate.prompt, 1) for _ in range(2))
    assert first == again
    assert len({replica.chat(gate.prompt, seed) for seed in range(10)}) > 5
