"""Measures the daemon beside other gateways, all in one run and in turns.

    python test-harness/bench/bench.py                       every gateway, 4 rounds, about 9 minutes
    python test-harness/bench/bench.py --only nginx,orchqueue --rounds 2
    python test-harness/bench/bench.py --into NAME           one more set of rounds into results/NAME
    python test-harness/bench/bench.py --report NAME         writes table and drawing of results/NAME again

A result is a folder: `rows.jsonl` (what was measured), `facts.json`, `table.md` and `figure.svg`.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import drawing
import figures
import report
from measure import GatewayFailed, compile_tools, engine, measure
from targets import HERE, TARGETS, Absent, Target

RESULTS = HERE / "results"


def main(words: Sequence[str]) -> int:
    arguments = _arguments(words)
    if arguments.report:
        _write_report(RESULTS / arguments.report)
        return 0
    if len(os.sched_getaffinity(0)) < 2:
        sys.stderr.write("two cores are needed: one for the gateway, one for engine and clients\n")
        return 1
    folder = RESULTS / (arguments.into or datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d-%H%M"))
    chosen, absent = _present(arguments.only)
    compile_tools()
    _write_facts(folder, chosen, absent)
    failed = _run(folder, list(chosen), arguments.rounds)
    _write_report(folder)
    sys.stdout.write((folder / "table.md").read_text(encoding="utf-8"))
    return 1 if failed else 0


def _arguments(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=4, metavar="N", help="rounds over all gateways (4)")
    parser.add_argument("--only", default="", metavar="A,B", help="beginnings of the names that are measured")
    parser.add_argument("--into", metavar="NAME", help="add to this result instead of a new one")
    parser.add_argument("--report", metavar="NAME", help="measure nothing, write table and drawing again")
    return parser.parse_args(words)


def _present(only: str) -> tuple[dict[Target, str], dict[str, str]]:
    """The targets that can be measured with their versions, and why the others cannot."""
    wanted = tuple(name.strip() for name in only.split(",") if name.strip())
    present: dict[Target, str] = {}
    absent: dict[str, str] = {}
    for target in TARGETS:
        if wanted and target.name != figures.DIRECT and not target.name.startswith(wanted):
            continue
        try:
            present[target] = target.version()
        except Absent as why:
            absent[target.name] = str(why)
            sys.stderr.write(f"{target.name}: absent: {why}\n")
    return present, absent


def _run(folder: Path, chosen: list[Target], rounds: int) -> bool:
    """Appends rows to the result; true when a gateway failed."""
    failed = False
    done = {row["round"] for row in _rows(folder)}
    first = max(done, default=0) + 1
    with engine(), (folder / "rows.jsonl").open("a", encoding="utf-8") as out:
        for number in range(first, first + rounds):
            # Always another one first, so that a trend of the machine hits each alike.
            turn = number % len(chosen)
            for target in chosen[turn:] + chosen[:turn]:
                try:
                    for row in measure(target, number):
                        out.write(json.dumps(row) + "\n")
                        out.flush()
                        sys.stderr.write(_line(row))
                except GatewayFailed as error:
                    failed = True
                    sys.stderr.write(f"round {number}: {error}\n")
    return failed


def _line(row: dict[str, Any]) -> str:
    each = row["cpu_s"] / max(1, row["answers"]) * 1e6
    return (
        f"round {row['round']} {row['target']}, {row['phase']}: {row['answers']} answers, "
        f"{each:.0f} us each, load {row['load_share']:.0%}, others {row['others_on_gateway_core']:.0%} "
        f"and {row['others_on_load_core']:.0%}, failed {row['failed'] or 'none'}\n"
    )


def _write_facts(folder: Path, chosen: dict[Target, str], absent: dict[str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    facts = {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        "machine": _machine(),
        "versions": {target.name: version for target, version in chosen.items()},
        "absent": absent,
    }
    (folder / "facts.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def _machine() -> dict[str, str]:
    """What the figures depend on, and nothing that names the host."""
    model = "unknown"
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return {
        "processor": model,
        "cores": f"{os.cpu_count()}; core 0 for the gateway, core 1 for engine and clients",
        "kernel": platform.release().partition("-")[0],
        "Python": platform.python_version(),
        "priority": f"nice {os.nice(0)}",
    }


def _rows(folder: Path) -> list[dict[str, Any]]:
    path = folder / "rows.jsonl"
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _write_report(folder: Path) -> None:
    rows = _rows(folder)
    facts = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
    (folder / "table.md").write_text(report.markdown(facts, rows), encoding="utf-8")
    (folder / "figure.svg").write_text(drawing.svg(rows), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
