"""From rows to figures: the columns of the table, each with median and spread over the rounds."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

Row = dict[str, Any]
DIRECT = "direct"


@dataclass(frozen=True)
class Figure:
    """Median and spread over the rounds."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Figure | None:
        return cls(statistics.median(values), min(values), max(values)) if values else None


@dataclass(frozen=True)
class Column:
    """A figure of the table."""

    title: str
    phase: str
    decimals: int
    #: The value of a row, given the row of the same phase and round without gateway.
    value: Callable[[Row, Row | None], float | None]


def _cpu_per_answer(row: Row, _direct: Row | None) -> float | None:
    return row["cpu_s"] / row["answers"] * 1e6 if row["answers"] else None


def _cpu_per_token(row: Row, _direct: Row | None) -> float | None:
    return row["cpu_s"] / row["tokens"] * 1e6 if row["tokens"] else None


def _added(percentile: str) -> Callable[[Row, Row | None], float | None]:
    def added(row: Row, direct: Row | None) -> float | None:
        if direct is None or row["first_token_us"] is None or direct["first_token_us"] is None:
            return None
        return float(row["first_token_us"][percentile] - direct["first_token_us"][percentile]) / 1e3

    return added


def _answers_per_s(row: Row, _direct: Row | None) -> float | None:
    return float(row["answers"] / row["seconds"])


CPU = (
    Column("CPU µs / answer, not streamed", "whole", 0, _cpu_per_answer),
    Column("CPU µs / stream, burst of 64 tokens", "burst", 0, _cpu_per_answer),
    Column("CPU µs / token, 64 paced streams", "paced_64", 1, _cpu_per_token),
    Column("CPU µs / token, 256 paced streams", "paced_256", 1, _cpu_per_token),
)
DELAY = (
    Column("added to the first token, p50 ms, 1 stream", "paced_1", 2, _added("p50")),
    Column("p50 ms, 64 streams", "paced_64", 2, _added("p50")),
    Column("p50 ms, 256 streams", "paced_256", 2, _added("p50")),
    Column("p99 ms, 256 streams", "paced_256", 2, _added("p99")),
)
RATE = (
    Column("answers / s seen, not streamed", "whole", 0, _answers_per_s),
    Column("streams / s seen, burst", "burst", 0, _answers_per_s),
)
MEMORY = Column("MiB after all", "paced_256", 0, lambda row, _direct: row["memory_mib"])


def figure(rows: Sequence[Row], target: str, column: Column) -> Figure | None:
    """A column of one target; `None` when nothing was measured or it would say nothing."""
    values = []
    for row in rows:
        if row["target"] != target or row["phase"] != column.phase:
            continue
        value = column.value(row, _direct(rows, row))
        if value is not None:
            values.append(value)
    return Figure.of(values)


def _direct(rows: Sequence[Row], row: Row) -> Row | None:
    """The row without gateway of the same round and phase."""
    wanted = (DIRECT, row["round"], row["phase"])
    return next((one for one in rows if (one["target"], one["round"], one["phase"]) == wanted), None)


def targets(rows: Sequence[Row]) -> list[str]:
    """In the order in which they were first measured, without gateway first."""
    names = dict.fromkeys(row["target"] for row in rows)
    return sorted(names, key=lambda name: name != DIRECT)
