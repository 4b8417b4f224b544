"""Writes generated files, or says which of them are not current."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Mapping

from contracts import ROOT

Render = Callable[[], str]


def run(artefacts: Mapping[str, Render], arguments: list[str]) -> int:
    """The whole of a generator's command line: nothing writes, `--check` compares."""
    if arguments not in ([], ["--check"]):
        sys.stderr.write("usage: no argument writes the files, `--check` compares them\n")
        return 2
    if not arguments:
        for path, render in artefacts.items():
            _write(path, render())
        return 0
    stale = [path for path, render in artefacts.items() if not _is_current(path, render())]
    for path in stale:
        sys.stderr.write(f"not current: `{path}`\n")
    if stale:
        sys.stderr.write("hint: run `ci/generate` and commit what it writes\n")
    return 1 if stale else 0


def _write(path: str, text: str) -> None:
    target = ROOT / path
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists() or target.read_text() != text:
        target.write_text(text)
        sys.stdout.write(f"wrote `{path}`\n")


def _is_current(path: str, text: str) -> bool:
    target = ROOT / path
    have = target.read_text() if target.exists() else ""
    if have == text:
        return True
    diff = difflib.unified_diff(
        have.splitlines(), text.splitlines(), f"a/{path}", f"b/{path}", lineterm="", n=1
    )
    sys.stderr.write("\n".join(list(diff)[:40]) + "\n")
    return False
