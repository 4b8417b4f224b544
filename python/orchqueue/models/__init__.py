"""The models that come with the package, and nothing about how they are served.

A model is a GGUF file beside a JSON document of the same catalog name. The document states what the file
must be (size, sha256) and what is known of the model; `README.md` beside it is the model card. Nobody gets a
path before the file has been compared with its document, so a damaged installation shows here and not as odd
text later.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from types import MappingProxyType
from typing import Any

__all__ = ["DamagedModelError", "Model", "ModelError", "UnknownModelError", "catalog", "digest", "path"]


class ModelError(Exception):
    """A model that comes with the package cannot be used."""


class UnknownModelError(ModelError):
    """No model of this name comes with the package."""


class DamagedModelError(ModelError):
    """A model's file is missing or is not the file that its document describes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """What is stated about one model. The file itself is checked by `path`."""

    name: str
    #: File name of the GGUF, beside this module.
    file: str
    #: sha256 of the GGUF, 64 lower-case hex digits.
    sha256: str
    bytes: int
    architecture: str
    parameters: int
    #: Trained context in tokens.
    ctx: int
    quant: str
    #: Key/value cache of one token, both halves together, with an f16 cache.
    kv_bytes_per_token: int
    #: Bytes of the longest vocabulary entry: what one token can add to an output at most.
    longest_token_bytes: int
    #: Measured figures by name; empty where nothing was measured.
    evaluation: Mapping[str, Any]

    @property
    def digest(self) -> str:
        """The model digest as it stands in identities and receipts."""
        return f"sha256:{self.sha256}"


@cache
def catalog() -> Mapping[str, Model]:
    """Every model that comes with the package, by name."""
    found: dict[str, Model] = {}
    for entry in sorted(resources.files(__name__).iterdir(), key=lambda item: item.name):
        if entry.name.endswith(".json"):
            model = _read_document(entry)
            found[model.name] = model
    return MappingProxyType(found)


def path(name: str) -> Path:
    """Where the model's GGUF lies. The first call in a process reads the file and verifies it."""
    return _verified(_known(name))


def digest(name: str) -> str:
    """The model's digest, `sha256:` and 64 hex digits, of a file that was verified."""
    model = _known(name)
    _verified(model)
    return model.digest


def _known(name: str) -> Model:
    models = catalog()
    if name not in models:
        names = ", ".join(f"`{known}`" for known in models)
        raise UnknownModelError(
            f"no model `{name}` comes with orchqueue; hint: use one of: {names}, or a path to a GGUF file"
        )
    return models[name]


def _read_document(entry: Traversable) -> Model:
    try:
        document = json.loads(entry.read_text(encoding="utf-8"))
        document["evaluation"] = MappingProxyType(document.get("evaluation", {}))
        return Model(**document)
    except (ValueError, TypeError) as error:
        raise DamagedModelError(
            f"model document `{entry.name}` cannot be read: {error}; hint: reinstall orchqueue"
        ) from error


# Keyed by the whole document, so that a test which swaps the catalog verifies again.
_paths: dict[tuple[str, str], Path] = {}


def _verified(model: Model) -> Path:
    key = (model.file, model.sha256)
    if key not in _paths:
        file = resources.files(__name__).joinpath(model.file)
        if not isinstance(file, Path):
            raise ModelError(f"model `{model.name}` lies inside an archive; hint: install orchqueue unpacked")
        _paths[key] = verify(model, file)
    return _paths[key]


def verify(model: Model, file: Path) -> Path:
    """Returns `file` if it is what `model` describes; raises `DamagedModelError` otherwise."""
    try:
        content = file.read_bytes()
    except OSError as error:
        raise DamagedModelError(
            f"model `{model.name}` cannot be read: {error}; hint: reinstall orchqueue"
        ) from error
    found = hashlib.sha256(content).hexdigest()
    if found != model.sha256:
        raise DamagedModelError(
            f"model `{model.name}` is damaged: `{file}` has sha256 {found} and {len(content)} bytes, "
            f"expected {model.sha256} and {model.bytes} bytes; hint: reinstall orchqueue"
        )
    return file
