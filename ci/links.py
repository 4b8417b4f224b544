"""Every relative link and every anchor in the Markdown files leads somewhere.

Links to other hosts are not followed: a check of a commit must not depend on somebody else's server.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from urllib.parse import unquote

ROOT = Path(__file__).parents[1]
FENCE = re.compile(r"^ {0,3}(```|~~~).*?^ {0,3}\1\s*$", re.MULTILINE | re.DOTALL)
CODE_SPAN = re.compile(r"(`+)(?:(?!\1).)+\1")
LINK = re.compile(r"\]\(<?([^()\s>]+(?:\([^()\s]*\))?)>?(?:\s+\"[^\"]*\")?\)")
REFERENCE = re.compile(r"^ {0,3}\[[^\]]+\]:\s+<?(\S+?)>?\s*$", re.MULTILINE)
HEADING = re.compile(r"^ {0,3}#{1,6}\s+(.*?)\s*#*\s*$", re.MULTILINE)
ANCHOR = re.compile(r"<a\s+(?:id|name)=\"([^\"]+)\"")
ELSEWHERE = re.compile(r"^[a-z][a-z0-9+.-]*:", re.IGNORECASE)


@dataclass(frozen=True)
class Broken:
    file: Path
    target: str
    why: str


def markdown_files() -> list[Path]:
    """The Markdown files that git knows or would add."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"]
    listed = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)  # noqa: S603
    return [path for line in sorted(set(listed.stdout.splitlines())) if (path := ROOT / line).exists()]


def targets(text: str) -> list[str]:
    """What the links of a document lead to; code is no link."""
    prose = CODE_SPAN.sub("``", FENCE.sub("", text))
    return LINK.findall(prose) + REFERENCE.findall(prose)


@cache
def anchors(path: Path) -> frozenset[str]:
    """The anchors of a document, as the common renderers make them from its headings."""
    text = FENCE.sub("", path.read_text(encoding="utf-8"))
    seen: dict[str, int] = {}
    found = set(ANCHOR.findall(text))
    for heading in HEADING.findall(text):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        found.add(slug if slug not in seen else f"{slug}-{seen[slug]}")
        seen[slug] = seen.get(slug, 0) + 1
    return frozenset(found)


def broken(path: Path) -> Iterator[Broken]:
    for target in targets(path.read_text(encoding="utf-8")):
        if ELSEWHERE.match(target):
            continue
        place, _, anchor = unquote(target).partition("#")
        found = (path.parent / place).resolve() if place else path
        if not found.is_relative_to(ROOT):
            yield Broken(path, target, "leads out of the repository")
        elif not found.exists():
            yield Broken(path, target, "no such file")
        elif anchor and found.suffix == ".md" and anchor not in anchors(found):
            yield Broken(path, target, f"no heading `{anchor}` there")


def main() -> int:
    files = markdown_files()
    faults = [fault for path in files for fault in broken(path)]
    for fault in faults:
        sys.stderr.write(f"{fault.file.relative_to(ROOT)}: `{fault.target}`: {fault.why}\n")
    sys.stdout.write(f"{len(files)} files, {len(faults)} broken links\n")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
