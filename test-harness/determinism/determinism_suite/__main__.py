"""The whole suite: `python -m determinism_suite [--prompts N] [--tokens N] [--out DIR] [--write-table]`.

First the promise on two models, then every set-up. Exit code 0: no byte differs, and what must be told apart
was. The report of the promise is left in `--out` in every case, with a picture where something differs.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from orchqueue import models
from orchqueue.determinism.cases import Plan
from orchqueue.determinism.suite import SuiteReport
from orchqueue.engines import embedded

from determinism_suite.launch import Launch
from determinism_suite.promise import Pair, hold, write_artifacts
from determinism_suite.setups import Measured, Setup, measure, setups
from determinism_suite.table import promised, put, rows

ROOT = Path(__file__).parents[3]
README = ROOT / "test-harness" / "determinism" / "README.md"
TINY, RANDOM = "orchqueue-tiny", "random weights, 3.1M"
#: The temperature at which set-ups are compared: chance makes a small difference of numbers show in a text.
WARM = (0.9,)


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(arguments)
    f16, q8 = random_models(options.out)
    plan = Plan(options.prompts, options.tokens)
    pairs = {TINY: Pair("tiny", TINY, 512), RANDOM: Pair("random", str(f16), 1024)}
    reports = {name: _promise(pair, plan, options.out) for name, pair in pairs.items()}
    warm = Plan(options.setup_prompts, options.setup_tokens, WARM, 7)
    tables = {
        TINY: _measure(TINY, setups(Launch(model=models.path(TINY)), None), warm),
        RANDOM: _measure(RANDOM, setups(Launch(model=f16, ctx=1024), q8), warm),
    }
    if options.write_table:
        parts = [f"### Model: `{name}`\n\n{rows(measured)}" for name, measured in tables.items()]
        put(README, "\n".join([_provenance(options), promised(reports), *parts]))
    told = all(one.as_expected for measured in tables.values() for one in measured)
    good = told and all(report.ok for report in reports.values())
    print("determinism: " + ("everything as promised" if good else f"FAILED, see {options.out}"))
    return 0 if good else 1


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m determinism_suite", description="The determinism suite.")
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--setup-prompts", type=int, default=32, help="prompts of each set-up")
    parser.add_argument("--setup-tokens", type=int, default=48)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "determinism")
    parser.add_argument("--write-table", action="store_true", help="put the table into the README")
    return parser.parse_args(arguments)


def random_models(folder: Path, hidden: int = 256, layers: int = 4) -> tuple[Path, Path]:
    """A model of random weights in 16 and in 8 bits."""
    sys.path.insert(0, str(ROOT / "test-harness"))
    import slow_model

    paths = folder / "random-f16.gguf", folder / "random-q8.gguf"
    for path, q8 in zip(paths, (False, True), strict=True):
        slow_model.write(slow_model.Shape(hidden, layers, ctx=1024, q8=q8), path)
    return paths


def _promise(pair: Pair, plan: Plan, out: Path) -> SuiteReport:
    report = hold(pair, plan)
    for one in report.sets:
        print(
            f"{pair.pool}: {one.cases} cases, {one.decodes.total()} decodes on {len(one.decodes)} replicas, "
            f"{one.tokens_out} tokens, {one.seconds:.1f} s, diverged: {len(one.divergences)}",
            flush=True,
        )
    document, picture = write_artifacts(report, out, pair.pool)
    if not report.ok:
        print(f"{pair.pool}: FAILED, see {document} and {picture}", flush=True)
    return report


def _measure(name: str, found: Sequence[Setup], plan: Plan) -> list[Measured]:
    begun = time.monotonic()
    measured = []
    for one in measure(found, plan):
        apart, word = one.apart, "ok" if one.as_expected else f"NOT {one.setup.expected}"
        numbers = f"texts {apart.texts}, log-probabilities {apart.logprobs} of {apart.cases}"
        print(f"{name}: {one.setup.name}: {numbers}, {word}", flush=True)
        measured.append(one)
    print(f"{name}: {len(measured)} set-ups in {time.monotonic() - begun:.0f} s", flush=True)
    return measured


def _provenance(options: argparse.Namespace) -> str:
    today = datetime.now(UTC).date().isoformat()
    return (
        f"Measured on {today} with {embedded.engine_version()} on a CPU that was shared with other work. The "
        f"promise: {options.prompts} prompts of {options.tokens} tokens, each at three temperatures. The "
        f"set-ups: {options.setup_prompts} prompts of {options.setup_tokens} tokens at temperature {WARM[0]} "
        "behind 350 characters that all share.\n"
    )


if __name__ == "__main__":
    sys.exit(main())
