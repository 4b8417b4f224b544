"""What a source tree must not contain: a stored haiku, this run's nonce, or the poem itself.

Lines are looked for in the files that belong to the tree, committed or not, without what git ignores. A
stored haiku is looked for among the ignored ones too. Outside of a git checkout every file counts. Folders
that only hold what tools have made are left out.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from orchqueue.determinism.haiku import HaikuReport

CANNED = "*fixtures/haiku*"
#: Shorter lines, such as `the sun`, stand in any text about poems.
SHORTEST_LINE = 12
_MADE_BY_TOOLS = {".git", ".venv", "target", "build", "node_modules", "__pycache__"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One reason to refuse a tree."""

    path: str
    #: Counted from 1; 0 for the file itself.
    line: int
    reason: str

    def to_dict(self) -> dict[str, str | int]:
        return {"path": self.path, "line": self.line, "reason": self.reason}


def scan(root: Path, report: HaikuReport) -> list[Finding]:
    """Everything under `root` that could have helped to answer `report` without a model."""
    words, nonce = report.prompt.minute_words.lower(), report.prompt.nonce.lower()
    poem = _telling_lines(report)
    found = [Finding(name, 0, "a stored haiku") for name in _all_names(root) if fnmatchcase(name, CANNED)]
    for path in tree_files(root):
        name = path.relative_to(root).as_posix()
        for number, line in enumerate(_lines(path), start=1):
            if nonce in line and words in line:
                found.append(Finding(name, number, "the minute and the nonce of this run"))
            elif any(verse in line for verse in poem):
                found.append(Finding(name, number, "a line of the poem"))
    return found


def tree_files(root: Path) -> Iterator[Path]:
    """The files of the tree, in order."""
    listing = ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        names = subprocess.run(listing, capture_output=True, check=True).stdout.decode().split("\0")
    except (OSError, subprocess.CalledProcessError):
        found = [root / name for name in _all_names(root)]
    else:
        found = [root / name for name in names if name]
    return (path for path in sorted(found) if path.is_file() and not path.is_symlink())


def _all_names(root: Path) -> list[str]:
    """Every file under `root`, relative to it, but those in folders that tools have made."""
    names = []
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(set(folders) - _MADE_BY_TOOLS)
        names += [(Path(folder) / file).relative_to(root).as_posix() for file in sorted(files)]
    return names


def _telling_lines(report: HaikuReport) -> list[str]:
    lines = {line.strip().lower() for poem in report.poems for line in poem.text.splitlines()}
    return sorted(line for line in lines if len(line) >= SHORTEST_LINE)


def _lines(path: Path) -> list[str]:
    """The lines of a text in lower case; what is no text has none."""
    try:
        return path.read_text(encoding="utf-8").lower().splitlines()
    except (UnicodeDecodeError, OSError):
        return []
