"""Where a command writes: results to standard output, everything else to standard error.

With `--json` standard output carries JSON only. Colours and progress lines need a terminal; a pipe gets
plain lines.
"""

from __future__ import annotations

import json as jsonlib
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from orchqueue.cli.failure import Failure

_COLORS = {"red": "31", "green": "32", "yellow": "33", "bold": "1", "dim": "2"}


class Terminal:
    """Standard output and standard error of one command."""

    def __init__(self, out: TextIO, err: TextIO, *, json: bool) -> None:
        self._out = out
        self._err = err
        self.json = json
        self._progress = ""
        self._line_open = False

    def write(self, text: str) -> None:
        """Result text as it comes, without a line end; seen at once."""
        if not text:
            return
        self.clear_progress()
        self._out.write(text)
        self._out.flush()
        self._line_open = not text.endswith("\n")

    def line(self, text: str = "") -> None:
        """One line of the result."""
        self.write(f"{text}\n")

    def end_line(self) -> None:
        """Ends the line of text that was written without its end."""
        if self._line_open:
            self.write("\n")

    def document(self, value: object) -> None:
        """One JSON object on a line of its own."""
        self.line(jsonlib.dumps(value, ensure_ascii=False, separators=(",", ":")))

    def pretty(self, value: object) -> None:
        """A JSON document for people to read."""
        self.line(jsonlib.dumps(value, ensure_ascii=False, indent=2))

    def table(self, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Columns that are as wide as their widest cell."""
        cells = [list(header), *([_cell(value) for value in row] for row in rows)]
        widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
        for number, row in enumerate(cells):
            text = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            self.line(self.colored(text, "bold") if number == 0 else text)

    def note(self, text: str) -> None:
        """A line beside the result."""
        self.clear_progress()
        self._err.write(f"{text}\n")
        self._err.flush()

    def progress(self, text: str) -> None:
        """What is going on: one line that is written over on a terminal, one line per change elsewhere."""
        if text == self._progress or self.json:
            return
        if self._err.isatty():
            self._err.write(f"\r\x1b[2K{text}")
        else:
            self._err.write(f"{text}\n")
        self._err.flush()
        self._progress = text

    def clear_progress(self) -> None:
        if self._progress and self._err.isatty():
            self._err.write("\r\x1b[2K")
            self._err.flush()
        self._progress = ""

    def fail(self, failure: Failure) -> None:
        """Says what went wrong and what to do about it."""
        if self.json:
            self.document({"error": failure.document()})
            return
        self.end_line()
        self.note(f"{self.colored('error:', 'red', err=True)} {failure.message}")
        if failure.hint:
            self.note(f"{self.colored('hint:', 'yellow', err=True)} {failure.hint}")

    def colored(self, text: str, color: str, *, err: bool = False) -> str:
        """`text` in a colour where its stream is a terminal that wants one."""
        stream = self._err if err else self._out
        if not stream.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
            return text
        return f"\x1b[{_COLORS[color]}m{text}\x1b[0m"

    @property
    def err_is_terminal(self) -> bool:
        return self._err.isatty()


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)
