"""How checks are shown: one a line, its outcome in front."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchqueue.cli.terminal import Terminal
    from orchqueue.determinism.verify import Check

_COLORS = {"ok": "green", "failed": "red", "skipped": "dim"}


def show_checks(checks: Iterable[Check], terminal: Terminal) -> None:
    for check in checks:
        outcome = terminal.colored(f"{check.outcome.value:<8}", _COLORS[check.outcome.value])
        terminal.line(f"{outcome}{check.name}: {check.reason}")
