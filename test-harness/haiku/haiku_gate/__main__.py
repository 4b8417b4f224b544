"""Runs the gate: `python -m haiku_gate [--url U] [--root DIR] [--json]`.

Without `--url` it starts `orchqueue serve` with an embedded replica of its own. Exit code 0: accepted, or
skipped for want of an engine; 1: refused. With `REQUIRE_REAL_LLAMA=1` a missing engine is a refusal.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from orchqueue.engines import embedded
from orchqueue.errors import OrchqueueError
from orchqueue.testing import LiveDaemon

from haiku_gate.gate import Verdict, judge

ROOT = Path(__file__).parents[3]
ACCEPTED, REFUSED = 0, 1
REQUIRED = "REQUIRE_REAL_LLAMA"


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(arguments)
    if options.url is None and embedded.engine_version() is None:
        return _without_engine()
    try:
        with _daemon(options.url) as url:
            verdict = judge(url, options.root)
    except OrchqueueError as error:
        sys.stderr.write(f"haiku gate: REFUSED: {error}\n")
        return REFUSED
    _show(verdict, as_json=options.json)
    return ACCEPTED if verdict.ok else REFUSED


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m haiku_gate", description="The release gate of the haiku."
    )
    parser.add_argument("--url", help="a running daemon; by default one is started")
    parser.add_argument("--root", type=Path, default=ROOT, help="the source tree that is scanned")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser.parse_args(arguments)


def _without_engine() -> int:
    why = f"the package `{embedded.PACKAGE}` is not installed"
    if os.environ.get(REQUIRED, "") in ("", "0"):
        sys.stderr.write(f"haiku gate: skipped: {why}; `{REQUIRED}=1` makes this a failure\n")
        return ACCEPTED
    sys.stderr.write(f"haiku gate: REFUSED: {why}\nhint: pip install 'orchqueue[embedded]'\n")
    return REFUSED


@contextmanager
def _daemon(url: str | None) -> Iterator[str]:
    if url is not None:
        yield url
        return
    pool = {"id": "tiny", "engine": "llamacpp", "replicas": [{"spawn": "embedded"}]}
    with LiveDaemon({"pools": [pool]}) as daemon:
        yield daemon.url


def _show(verdict: Verdict, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(verdict.to_dict(), ensure_ascii=False))
        return
    report = verdict.report
    print(f"prompt: {report.prompt.text}\n")
    print(report.poem.text.strip() + "\n")
    for refused in report.poems[:-1]:
        print(f"tried again with another seed: {'; '.join(refused.faults)}")
    for check in report.checks:
        print(f"{check.outcome.value:<8}{check.name}: {check.reason}")
    for finding in verdict.findings:
        print(f"failed  source: {finding.path}:{finding.line}: {finding.reason}")
    if not verdict.findings:
        print(f"ok      source: nothing of this run in the {verdict.files} files of the tree")
    print("haiku gate: " + ("accepted" if verdict.ok else "REFUSED"))


if __name__ == "__main__":
    sys.exit(main())
