"""The Markdown table of a result."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from typing import Any

from figures import CPU, DELAY, DIRECT, MEMORY, RATE, Column, Figure, Row, figure, targets


def markdown(facts: dict[str, Any], rows: Sequence[Row]) -> str:
    """A page: what was measured, where, the tables, and how much to trust them."""
    gateways = [name for name in targets(rows) if name != DIRECT]
    parts = [
        f"# Bench of {facts['date']}\n",
        _machine(facts),
        "## CPU time\n\nUser and system time of all of a gateway: journal, store and metrics too.\n",
        _table(rows, gateways, [*CPU, MEMORY]),
        "## Delay\n\nAgainst the row `direct` of the same round.\n",
        _table(rows, gateways, DELAY),
        "## Rate that was seen\n\nThe load has one core: a gateway near `direct` was limited by the load.\n",
        _table(rows, [DIRECT, *gateways], RATE),
        _where_it_goes(rows, gateways),
        _trust(rows),
        "![CPU time and delay](figure.svg)\n",
    ]
    return "\n".join(parts)


def _machine(facts: dict[str, Any]) -> str:
    lines = [f"- {name}: {value}" for name, value in facts["machine"].items()]
    lines += [f"- `{name}`: {version}" for name, version in facts["versions"].items()]
    lines += [f"- `{name}`: absent: {reason}" for name, reason in facts["absent"].items()]
    return "\n".join(lines) + "\n"


def _table(rows: Sequence[Row], names: Sequence[str], columns: Sequence[Column]) -> str:
    """Medians over the rounds, least..most behind them."""
    lines = ["| gateway | " + " | ".join(column.title for column in columns) + " |"]
    lines.append("|---" * (len(columns) + 1) + "|")
    for name in names:
        cells = [_cell(figure(rows, name, column), column.decimals) for column in columns]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _cell(found: Figure | None, decimals: int) -> str:
    if found is None:
        return "-"
    median, least, most = (f"{value:.{decimals}f}" for value in (found.median, found.least, found.most))
    return f"{median} ({least}..{most})"


def _where_it_goes(rows: Sequence[Row], gateways: Sequence[str]) -> str:
    """The threads that took at least 2% of a gateway's time, per phase."""
    lines = ["## Where it goes\n", "| gateway | phase | share of its CPU time by thread |", "|---|---|---|"]
    for name in gateways:
        for phase in dict.fromkeys(row["phase"] for row in rows):
            spent: Counter[str] = Counter()
            for row in rows:
                if (row["target"], row["phase"]) == (name, phase):
                    spent.update(row["cpu_by_thread_s"])
            total = sum(spent.values())
            shares = [
                f"{thread} {value / total:.0%}"
                for thread, value in spent.most_common()
                if value >= total * 0.02
            ]
            lines.append(f"| {name} | {phase} | {', '.join(shares) or '-'} |")
    return "\n".join(lines) + "\n"


def _trust(rows: Sequence[Row]) -> str:
    failed: Counter[str] = Counter()
    for row in rows:
        for kind, count in row["failed"].items():
            failed[f"{row['target']}, {row['phase']}: {kind}"] += count
    lines = [
        "## How much to trust it\n",
        f"- rounds: {len({row['round'] for row in rows})}, the gateways in turns",
        f"- others took of the gateway's core: {_shares(rows, 'others_on_gateway_core')}",
        f"- others took of the load's core: {_shares(rows, 'others_on_load_core')}",
        f"- failed answers: {', '.join(f'{what} {count}' for what, count in failed.items()) or 'none'}",
    ]
    return "\n".join(lines) + "\n"


def _shares(rows: Sequence[Row], name: str) -> str:
    shares = [row[name] for row in rows]
    return f"median {statistics.median(shares):.0%}, most {max(shares):.0%}"
