"""No dependency, Rust or Python, may be had only under the GPL or AGPL.

What is built, tested and shipped counts alike: a tool with such a licence is no harm, but a list without
exceptions needs no judgement.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DENIED = re.compile(r"\bA?GPL|(?<!Lesser )General Public License", re.IGNORECASE)
UNKNOWN = {"", "unknown", "none"}
# Tokens of a licence expression. `/` and `;` are how older packages write OR.
TOKEN = re.compile(r"\(|\)|\bOR\b|\bAND\b|/|;|(?:(?!\bOR\b|\bAND\b)[^()/;])+")


def acceptable(expression: str) -> bool:
    """True when the expression can be met without a denied licence."""
    # Older names carry their short form in parentheses, which are not those of an expression.
    named = re.sub(r"(?<=[A-Za-z0-9.]) \(([^()]*)\)", r" \1", expression)
    tokens = [token.strip() for token in TOKEN.findall(named) if token.strip()]
    return _any(tokens)


def _any(tokens: list[str]) -> bool:
    met = _all(tokens)
    while tokens and tokens[0] in {"OR", "/", ";"}:
        tokens.pop(0)
        met = _all(tokens) or met
    return met


def _all(tokens: list[str]) -> bool:
    met = _one(tokens)
    while tokens and tokens[0] == "AND":
        tokens.pop(0)
        met = _one(tokens) and met
    return met


def _one(tokens: list[str]) -> bool:
    token = tokens.pop(0) if tokens else ""
    if token != "(":  # noqa: S105
        return token.lower() not in UNKNOWN and not DENIED.search(token)
    met = _any(tokens)
    if tokens:
        tokens.pop(0)
    return met


def packages() -> Iterator[tuple[str, str, str]]:
    """Every dependency as (language, name, licence)."""
    for package in _documents(["cargo", "metadata", "--locked", "--format-version", "1"])["packages"]:
        yield "Rust", package["name"], package["license"] or ""
    # Beside this interpreter: the environment that is checked.
    lister = str(Path(sys.executable).with_name("pip-licenses"))
    for package in _documents([lister, "--from=mixed", "--format=json"]):
        yield "Python", package["Name"], package["License"]


def _documents(command: list[str]) -> Any:
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)  # noqa: S603
    return json.loads(done.stdout)


def main() -> int:
    found = list(packages())
    refused = [row for row in found if not acceptable(row[2])]
    for language, name, licence in refused:
        sys.stderr.write(f"{language} package `{name}`: licence is not allowed: {licence or 'not stated'}\n")
    sys.stdout.write(f"{len(found)} packages, {len(refused)} refused\n")
    return 1 if refused else 0


if __name__ == "__main__":
    sys.exit(main())
