"""Reads the documents of contracts/, for the generators and the checks of this directory."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
CONTRACTS = ROOT / "contracts"
OPENAPI_DOCUMENTS = ("data.yaml", "openai.yaml", "control.yaml")


@cache
def load(name: str) -> dict[str, Any]:
    """A YAML document of contracts/, by its path below it. Read once: callers leave it as it is."""
    document = yaml.safe_load((CONTRACTS / name).read_text())
    if not isinstance(document, dict):
        raise ValueError(f"`contracts/{name}` is not a mapping")
    return document


def openapi_documents() -> dict[str, dict[str, Any]]:
    """The OpenAPI documents by file name."""
    return {name: load(f"openapi/{name}") for name in OPENAPI_DOCUMENTS}


def walk(node: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """Every mapping of a document with the keys that lead to it, parents first."""
    if isinstance(node, dict):
        yield path, node
        for key, value in node.items():
            yield from walk(value, (*path, str(key)))
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from walk(value, (*path, str(index)))
