"""The drawing of a result: horizontal bars with their spread, one panel per figure, as plain SVG."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from figures import CPU, DELAY, DIRECT, Column, Figure, Row, figure, targets

_WIDTH, _LABEL, _BAR, _GAP, _HEAD = 760, 170, 18, 6, 34
_ROOM = _WIDTH - _LABEL - 110
_OWN, _PEER, _SPREAD, _INK = "#2f6fb2", "#a9b4c0", "#1d2b3a", "#1d2b3a"


def svg(rows: Sequence[Row]) -> str:
    names = [name for name in targets(rows) if name != DIRECT]
    columns = [*CPU, *DELAY[:3]]
    panel = _HEAD + len(names) * (_BAR + _GAP) + 12
    height = panel * len(columns)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" '
        f'viewBox="0 0 {_WIDTH} {height}" font-family="sans-serif" font-size="12" fill="{_INK}">',
        f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>',
    ]
    for index, column in enumerate(columns):
        found = [(name, figure(rows, name, column)) for name in names]
        parts += _panel(column, found, index * panel)
    return "\n".join([*parts, "</svg>", ""])


def _panel(column: Column, found: Sequence[tuple[str, Figure | None]], top: int) -> list[str]:
    title = column.title if "added" in column.title or "CPU" in column.title else f"added: {column.title}"
    parts = [f'<text x="8" y="{top + 22}" font-weight="bold">{escape(title)}</text>']
    longest = max((one.most for _, one in found if one is not None), default=0.0)
    scale = _ROOM / longest if longest > 0 else 0.0
    for index, (name, one) in enumerate(found):
        y = top + _HEAD + index * (_BAR + _GAP)
        parts.append(f'<text x="8" y="{y + 13}">{escape(name)}</text>')
        if one is None:
            parts.append(f'<text x="{_LABEL}" y="{y + 13}">not measured</text>')
        else:
            parts += _bar(one, column.decimals, y, scale, own=name.startswith("orchqueue"))
    return parts


def _bar(one: Figure, decimals: int, y: int, scale: float, *, own: bool) -> list[str]:
    """The bar ends at the median; the line goes from the least to the most. Below zero there is no bar."""
    middle = y + _BAR / 2
    least, median, most = (max(0.0, value) * scale + _LABEL for value in (one.least, one.median, one.most))
    colour = _OWN if own else _PEER
    return [
        f'<rect x="{_LABEL}" y="{y}" width="{median - _LABEL:.1f}" height="{_BAR}" fill="{colour}"/>',
        f'<line x1="{least:.1f}" x2="{most:.1f}" y1="{middle}" y2="{middle}" stroke="{_SPREAD}"/>',
        f'<text x="{most + 6:.1f}" y="{y + 13}">{one.median:.{decimals}f}</text>',
    ]
