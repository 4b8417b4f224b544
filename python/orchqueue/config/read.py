"""Reads the YAML document and the environment into one plain tree that knows where each value came from.

Only plain YAML is taken: no tags, no merge keys, no key twice. Anchors work, within a bound on the size of
the tree, so that a small file cannot unfold into a large one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any

import yaml

from orchqueue.config.errors import ConfigError, Problem, show_path

Path = tuple[str | int, ...]
Tree = dict[str, Any] | list[Any] | str | int | float | bool | None

ENV_PREFIX = "ORCHQUEUE_"
MAX_NODES = 50_000
MAX_DEPTH = 32
MAX_FILE_BYTES = 4_194_304
_PLAIN_TAGS = frozenset(f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float", "str"))
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(slots=True)
class Document:
    """A tree of plain values and the origin (`file:line` or `env NAME`) of every path that was written."""

    tree: dict[str, Any] = field(default_factory=dict)
    origins: dict[Path, str] = field(default_factory=dict)

    def origin(self, path: Path) -> str | None:
        """Origin of `path` or of the nearest thing around it that was written."""
        for end in range(len(path), 0, -1):
            found = self.origins.get(path[:end])
            if found is not None:
                return found
        return None


def read_document(path: FilePath | None, env: Mapping[str, str], sections: frozenset[str]) -> Document:
    """The file's tree with the environment's overrides laid over it."""
    document = Document() if path is None else _read_file(path)
    for name in sorted(env):
        if name.startswith(ENV_PREFIX):
            _override(document, name, env[name], sections)
    return document


def _read_file(path: FilePath) -> Document:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError([Problem("", f"cannot read `{path}`: {reason}")]) from error
    if len(raw) > MAX_FILE_BYTES:
        raise ConfigError([Problem("", f"`{path}` is too large: at most {MAX_FILE_BYTES} bytes")])
    document = Document()
    tree = _Walk(str(path), document.origins).parse(raw)
    if tree is None:
        tree = {}
    if not isinstance(tree, dict):
        raise ConfigError([Problem("", "the document must be a mapping of sections", origin=str(path))])
    document.tree = tree
    return document


class _Walk:
    """Turns one YAML text into a plain tree and notes the line of every path."""

    def __init__(self, source: str, origins: dict[Path, str], *, fixed_origin: bool = False) -> None:
        self._source = source
        self._origins = origins
        self._fixed = fixed_origin
        self._nodes = 0
        self._loader: Any = None

    def parse(self, text: str | bytes, at: Path = ()) -> Tree:
        try:
            self._loader = _Loader(text)
            try:
                node = self._loader.get_single_node()
                return None if node is None else self._tree(node, at)
            finally:
                self._loader.dispose()
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line if error.problem_mark else None
            raise self._problem(at, f"not valid YAML: {error.problem or error.context}", line) from error
        except (yaml.YAMLError, UnicodeError, RecursionError) as error:
            text_of = str(error).splitlines() or [type(error).__name__]
            raise self._problem(at, f"not valid YAML: {text_of[0]}", None) from error

    def _origin(self, line: int | None) -> str:
        return self._source if self._fixed or line is None else f"{self._source}:{line + 1}"

    def _problem(self, path: Path, message: str, line: int | None, hint: str | None = None) -> ConfigError:
        return ConfigError([Problem(show_path(path), message, hint, self._origin(line))])

    def _tree(self, node: yaml.Node, path: Path) -> Tree:
        line = node.start_mark.line
        self._nodes += 1
        if self._nodes > MAX_NODES or len(path) > MAX_DEPTH:
            raise self._problem(path, "the document is too large or too deep", line)
        self._origins.setdefault(path, self._origin(line))
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self._tree(item, (*path, index)) for index, item in enumerate(node.value)]
        return self._scalar(node, path)

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        tree: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line
            if not isinstance(key_node, yaml.ScalarNode):
                raise self._problem(path, "a key must be plain text", line)
            key = str(key_node.value)
            here = (*path, key)
            if key in tree:
                raise self._problem(here, "the key stands here twice", line, "keep one of them")
            self._origins[here] = self._origin(line)
            tree[key] = self._tree(value_node, here)
        return tree

    def _scalar(self, node: yaml.Node, path: Path) -> Tree:
        line = node.start_mark.line
        if node.tag not in _PLAIN_TAGS:
            if node.tag in (
                "tag:yaml.org,2002:timestamp",
                "tag:yaml.org,2002:value",
                "tag:yaml.org,2002:merge",
            ):
                return str(node.value)
            raise self._problem(path, f"the tag `{node.tag}` is not allowed", line, "write a plain value")
        try:
            value: Tree = self._loader.construct_object(node)
        except (ValueError, OverflowError) as error:
            raise self._problem(path, "not a number that can be read", line) from error
        return value


def _override(document: Document, name: str, value: str, sections: frozenset[str]) -> None:
    """Lays one `ORCHQUEUE_SECTION__KEY` over the tree. Other `ORCHQUEUE_*` names belong to the client."""
    parts = name.removeprefix(ENV_PREFIX).lower().split("__")
    if parts[0] not in sections:
        section = next((one for one in sorted(sections) if parts[0].startswith(f"{one}_")), None)
        if section is not None:
            rest = "__".join([parts[0].removeprefix(f"{section}_"), *parts[1:]]).upper()
            hint = f"did you mean `{ENV_PREFIX}{section.upper()}__{rest}`?"
            raise ConfigError([Problem("", "names no section", hint, f"env {name}")])
        if len(parts) > 1:
            hint = f"the sections are {', '.join(f'`{one}`' for one in sorted(sections))}"
            raise ConfigError([Problem(parts[0], "unknown section", hint, f"env {name}")])
        return
    path: Path = tuple(int(part) if re.fullmatch(r"[0-9]{1,4}", part) else part for part in parts)
    for stale in [known for known in document.origins if known[: len(path)] == path]:
        del document.origins[stale]
    tree = _Walk(f"env {name}", document.origins, fixed_origin=True).parse(value, path)
    _put(document.tree, path, tree, name)


def _put(tree: dict[str, Any], path: Path, value: Tree, name: str) -> None:
    """Stores `value` at `path`; mappings on the way are made, list items must exist."""
    here: Any = tree
    for position, part in enumerate(path):
        last = position == len(path) - 1
        if isinstance(here, list):
            if not isinstance(part, int) or part >= len(here):
                problem = (
                    f"the list has {len(here)} items" if isinstance(part, int) else "a list item has a number"
                )
                raise ConfigError([Problem(show_path(path[: position + 1]), problem, origin=f"env {name}")])
        elif isinstance(here, dict):
            part = str(part)
            if not last and here.get(part) is None:
                here[part] = {}
        else:
            raise ConfigError(
                [Problem(show_path(path[:position]), "is a single value", origin=f"env {name}")]
            )
        if last:
            here[part] = value
        else:
            here = here[part]


def leaves(tree: Tree, path: Path = ()) -> Iterator[tuple[Path, Tree]]:
    """Every single value of a tree with its path; an empty list or mapping counts as one."""
    if isinstance(tree, dict) and tree:
        for key, value in tree.items():
            yield from leaves(value, (*path, key))
    elif isinstance(tree, list) and tree:
        for index, value in enumerate(tree):
            yield from leaves(value, (*path, index))
    else:
        yield path, tree
