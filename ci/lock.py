"""`requirements.lock` has every dependency that pyproject.toml asks for, in a version that it allows.

The lock is made by the command in its first lines. It is not made again here: that would compare with the
newest releases of the day, and a commit would fail for what somebody else published.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", re.MULTILINE)


def asked() -> list[Requirement]:
    """The direct dependencies: of the package, of its `embedded` extra, of its development and its build."""
    document = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    project = document["project"]
    lines = [
        *project["dependencies"],
        *project["optional-dependencies"]["embedded"],
        *document["dependency-groups"]["dev"],
        *document["build-system"]["requires"],
    ]
    return [Requirement(line) for line in lines]


def faults(lock: str, requirements: list[Requirement]) -> list[str]:
    pins = {canonicalize_name(name): version for name, version in PIN.findall(lock)}
    found = [f"`{name}`: has no hash" for name, block in _blocks(lock) if "--hash=sha256:" not in block]
    for one in requirements:
        version = pins.get(canonicalize_name(one.name))
        if version is None:
            found.append(f"`{one.name}`: asked for in `pyproject.toml`, but not locked")
        elif not one.specifier.contains(version, prereleases=True):
            found.append(f"`{one.name}`: locked at {version}, but `pyproject.toml` asks for: {one.specifier}")
    return found


def _blocks(lock: str) -> list[tuple[str, str]]:
    """Each pin with the lines up to the next one."""
    starts = list(PIN.finditer(lock))
    ends = [match.start() for match in starts[1:]] + [len(lock)]
    return [(match[1], lock[match.start() : end]) for match, end in zip(starts, ends, strict=True)]


def main() -> int:
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    found = faults(lock, asked())
    for fault in found:
        sys.stderr.write(f"{fault}\n")
    if found:
        sys.stderr.write("hint: run the `uv pip compile` command in the first lines of `requirements.lock`\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
