"""The short form of the determinism suite: real replicas agree, and what must be told apart is."""

import asyncio
import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from orchqueue import AsyncClient, models
from orchqueue.determinism.cases import Plan
from orchqueue.determinism.suite import SuiteReport, run_suite
from orchqueue.testing import LiveDaemon

sys.path.insert(0, str(Path(__file__).parents[2] / "test-harness" / "determinism"))

from determinism_suite import setups
from determinism_suite.__main__ import random_models
from determinism_suite.compare import Apart
from determinism_suite.launch import Launch, running
from determinism_suite.promise import Pair, hold, write_artifacts
from determinism_suite.setups import Measured, measure
from determinism_suite.table import BEGIN, END, put, rows

PROBE = Plan(prompts=8, tokens=32, temperatures=(0.9,), seed=7)
CTX = 1024


@pytest.fixture(scope="module")
def random(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """One model of random weights, in 16 and in 8 bits."""
    return random_models(tmp_path_factory.mktemp("random"), hidden=128, layers=2)


def measured(plan: Plan, weights: tuple[Path, Path], *names: str) -> list[Apart]:
    """These set-ups, in the order in which they are named."""
    known = {one.name: one for one in setups.setups(Launch(model=weights[0], ctx=CTX), weights[1])}
    return [one.apart for one in measure([known[name] for name in names], plan)]


# req: ORCH-4011
def test_two_replicas_give_the_same_bytes_for_64_prompts_at_three_temperatures(tmp_path: Path) -> None:
    report = hold(Pair("tiny", "orchqueue-tiny", 512), Plan(prompts=64, tokens=32))
    document, _ = write_artifacts(report, tmp_path, "tiny")
    (found,) = json.loads(document.read_text())["sets"]
    assert found["divergences"] == found["unfinished"] == []
    assert found["cases"] == 64 * 3
    assert found["one_sided"] == 0
    assert sorted(found["decodes"]) == ["tiny-0", "tiny-1"]
    assert found["tokens_out"] >= 64 * 3 * 32 * 2
    assert report.ok


# req: ORCH-4019
def test_another_quantisation_is_another_set(random: tuple[Path, Path]) -> None:
    pools = [
        {**Pair(name, str(path), CTX).config()} for name, path in zip(("f16", "q8"), random, strict=True)
    ]
    for pool in pools:
        pool["replicas"] = [{"spawn": "embedded"}]
    with LiveDaemon({"pools": pools}) as live, live.client() as client:
        sets = {one["pool_id"]: one for one in client.replicasets()["replicasets"]}
    assert sets["f16"]["id"] != sets["q8"]["id"]
    assert sets["f16"]["identity"]["quant"] == "F16"
    assert sets["q8"]["identity"]["quant"] == "Q8_0"
    assert sets["f16"]["model_digest"] != sets["q8"]["model_digest"]


# req: ORCH-4011
def test_another_quantisation_is_caught_by_a_join_probe(random: tuple[Path, Path]) -> None:
    other, same = measured(PROBE, random, setups.OTHER_QUANT, "the same again")
    assert other.logprobs == other.cases
    assert same.harmless


# req: ORCH-4011
def test_flash_attention_with_other_threads_is_caught_by_its_log_probabilities(
    random: tuple[Path, Path],
) -> None:
    # Two threads on two busy cores are slow: a few tokens behind a long prompt tell enough.
    few = Plan(prompts=8, tokens=4, temperatures=(0.9,), seed=7)
    other, same = measured(few, random, setups.FLASH_THREADS, "flash attention on, the same again")
    assert other.share() > 0.5
    assert same.harmless


# req: ORCH-4011
def test_a_unified_cache_under_load_is_caught_statistically(random: tuple[Path, Path]) -> None:
    many = Plan(prompts=16, tokens=16, temperatures=(0.9,), seed=7)
    unified, alone = measured(many, random, setups.UNIFIED_UNDER_LOAD, "8 clients at once")
    assert unified.share() >= 0.5
    # The same load on one sequence changes not one number.
    assert alone.harmless


@contextmanager
def declared_alike(*launches: Launch) -> Iterator[str]:
    """A daemon with engines that somebody else runs and declares to be launched alike."""
    with ExitStack() as stack:
        declared = {
            "engine_version": "xllamacpp",
            "device_class": "cpu:x86_64:avx2",
            "flash_attn": False,
            "n_batch": 2048,
            "n_ubatch": 512,
        }
        urls = [stack.enter_context(running(launch)) for launch in launches]
        replicas = [{"url": url, "slots": 1, "declared": declared} for url in urls]
        pool = {"id": "alike", "engine": "llamacpp", "ctx": 512, "replicas": replicas}
        yield stack.enter_context(LiveDaemon({"pools": [pool]})).url


async def compared(url: str, plan: Plan) -> SuiteReport:
    async with AsyncClient(url) as client:
        return await run_suite(client, plan)


# req: ORCH-4011
def test_a_replica_that_was_launched_otherwise_than_declared_is_found_by_its_bytes(tmp_path: Path) -> None:
    true = Launch(model=models.path("orchqueue-tiny"))
    lie = Launch(model=true.model, flash_attn=True)
    with declared_alike(true, lie) as url:
        report = asyncio.run(compared(url, Plan(prompts=24, tokens=128, temperatures=(1.2,))))
    assert not report.ok
    document, picture = write_artifacts(report, tmp_path, "alike")
    first = json.loads(document.read_text())["sets"][0]["divergences"][0]
    assert first["left"]["replica_id"] != first["right"]["replica_id"]
    left, right = first["left"]["text"].encode(), first["right"]["text"].encode()
    offset = first["byte_offset"]
    assert left[:offset] == right[:offset]
    assert left[offset : offset + 1] != right[offset : offset + 1]
    assert first["flags"]["flash_attn"] is False
    assert picture.read_text().count("<figure>") == len(report.divergences)


def test_the_table_is_put_between_its_marks(tmp_path: Path) -> None:
    base = Launch(model=tmp_path / "any.gguf")
    one = Measured(setups.Setup("the same again", base, base), Apart(4, 0, 0, 0.0))
    other = Measured(setups.Setup("a lie", base, base), Apart(4, 1, 3, 0.02))
    assert (one.as_expected, other.as_expected) == (True, False)
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{BEGIN}old\n{END}after\n")
    put(readme, rows([one, other]))
    assert readme.read_text().startswith(f"before\n{BEGIN}\n| set-up |")
    assert "| the same again | 0 of 4 | 0 of 4 | 0.0e+00 | harmless |" in readme.read_text()
    assert "| a lie | 1 of 4 | 3 of 4 | 2.0e-02 | NOT the same |" in readme.read_text()
    assert readme.read_text().endswith(f"{END}after\n")
    readme.write_text("no marks")
    with pytest.raises(ValueError, match="no place for the table"):
        put(readme, "")
