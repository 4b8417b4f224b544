"""Turns pydantic's findings into problems that name the key as the user wrote it and say what to do."""

from __future__ import annotations

import types
import typing
from typing import Any

from pydantic import BaseModel, ValidationError

from orchqueue.config.errors import ConfigError, Problem, show_path, suggest
from orchqueue.config.read import Document, Path

_WANTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "string_type": "text",
    "bool_type": "`true` or `false`",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
}
_BOUNDS = {
    "greater_than_equal": ("at least", "ge"),
    "less_than_equal": ("at most", "le"),
    "too_short": ("at least", "min_length"),
    "too_long": ("at most", "max_length"),
    "string_too_short": ("at least", "min_length"),
}


def refuse(root: type[BaseModel], document: Document, error: ValidationError) -> ConfigError:
    """Every finding as one problem, in the order of the document, at most one per path."""
    problems: dict[str, Problem] = {}
    for finding in error.errors(include_url=False, include_context=True, include_input=True):
        path = _key_path(document, finding["loc"])
        message, hint = _words(root, path, typing.cast("dict[str, Any]", finding))
        shown = show_path(path)
        problems.setdefault(shown, Problem(shown, message, hint, document.origin(path)))
    return ConfigError(problems.values())


def _key_path(document: Document, loc: tuple[int | str, ...]) -> Path:
    """The part of pydantic's location that lies in the document: union branches are left out."""
    here: Any = document.tree
    path: list[str | int] = []
    for position, part in enumerate(loc):
        inside = isinstance(here, dict) or (isinstance(here, list) and isinstance(part, int))
        last = position == len(loc) - 1
        if inside and (last or _has(here, part)):
            path.append(part)
            here = here[part] if _has(here, part) else None
    return tuple(path)


def _has(tree: Any, part: int | str) -> bool:
    if isinstance(tree, dict):
        return part in tree
    return isinstance(tree, list) and isinstance(part, int) and part < len(tree)


def _words(root: type[BaseModel], path: Path, finding: dict[str, Any]) -> tuple[str, str | None]:
    kind: str = finding["type"]
    context: dict[str, Any] = finding.get("ctx", {})
    if kind == "extra_forbidden":
        return "unknown key", suggest(str(path[-1]), _keys(root, path[:-1]))
    if kind == "missing":
        return "is missing", f"write `{path[-1]}: …`"
    if kind in _WANTED:
        return f"must be {_WANTED[kind]}", None
    if kind in _BOUNDS:
        word, bound = _BOUNDS[kind]
        limit = context.get(bound, context.get("min_length", context.get("max_length")))
        things = " items" if kind.startswith("too_") else " characters" if kind.startswith("string_") else ""
        return f"must be {word} {limit}{things}", None
    if kind == "literal_error":
        expected = str(context.get("expected", "")).replace("'", "`")
        given = finding.get("input")
        known = expected.replace("`", "").replace(" or ", ", ").split(", ")
        return f"must be {expected}", suggest(given, known) if isinstance(given, str) else None
    if kind == "string_pattern_mismatch":
        return "must be lower-case letters, digits, `-` and `_`, at most 63, no `-` or `_` first", None
    return str(finding["msg"]), None


def _keys(root: type[BaseModel], path: Path) -> list[str]:
    """The keys that the section at `path` knows."""
    here: Any = root
    for part in path:
        model = _model(here)
        if isinstance(part, int):
            continue
        if model is None or part not in model.model_fields:
            return []
        here = model.model_fields[part].annotation
    model = _model(here)
    return list(model.model_fields) if model is not None else []


def _model(annotation: Any) -> type[BaseModel] | None:
    """The section inside an annotation: `Section`, `list[Section]`, `Section | None`."""
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        return annotation if issubclass(annotation, BaseModel) else None
    for inner in typing.get_args(annotation):
        found = _model(inner)
        if found is not None:
            return found
    return None
