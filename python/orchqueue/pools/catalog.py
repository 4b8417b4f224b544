"""From the name of a model to its file and to what is known of it before an engine runs."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from orchqueue import models
from orchqueue.engines import gguf

_BLOCK = 1_048_576


class ModelUnavailable(Exception):
    """The model cannot be had on this host. The message says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFile:
    """A model that lies on this host."""

    #: Name under which clients ask for it.
    name: str
    path: Path
    ctx: int | None
    quant: str | None
    longest_token_bytes: int | None
    #: Stated by the catalog; otherwise it is computed from the file before the first replica starts.
    digest: str | None


def find_model(reference: str) -> ModelFile:
    """The file behind a catalog name, a digest or a path; reads the head of the file, not all of it."""
    for known in models.catalog().values():
        if reference in (known.name, known.digest):
            return ModelFile(
                name=known.name,
                path=_packaged(known.name),
                ctx=known.ctx,
                quant=known.quant.upper(),
                longest_token_bytes=known.longest_token_bytes,
                digest=known.digest,
            )
    if reference.startswith(("sha256:", "repo:")):
        raise ModelUnavailable(f"no model `{reference}` on this host; hint: give the path of a GGUF file")
    path = Path(reference)
    try:
        head = gguf.read_head(path)
    except gguf.NotGguf as error:
        raise ModelUnavailable(str(error)) from error
    except (OSError, ValueError) as error:
        names = ", ".join(f"`{name}`" for name in models.catalog())
        reason = getattr(error, "strerror", None) or str(error)
        raise ModelUnavailable(
            f"model `{reference}`: {reason}; hint: a catalog name ({names}) or the path of a GGUF file"
        ) from error
    return ModelFile(
        name=path.stem,
        path=path.absolute(),
        ctx=head.ctx,
        quant=head.quant,
        longest_token_bytes=head.longest_token_bytes,
        digest=None,
    )


def _packaged(name: str) -> Path:
    try:
        return models.path(name)
    except models.ModelError as error:
        raise ModelUnavailable(str(error)) from error


class Digests:
    """sha256 of model files, computed once per file: a large one takes a minute."""

    def __init__(self, notes: Path | None) -> None:
        self._notes = notes
        self._lock = Lock()
        self._known: dict[str, str] = _read_notes(notes) if notes is not None else {}

    def digest(self, path: Path) -> str:
        """`sha256:…` of the file; blocks. A file with another size or time of change is another file."""
        state = path.stat()
        key = f"{path.resolve()}\0{state.st_mtime_ns}\0{state.st_size}"
        with self._lock:
            found = self._known.get(key)
            if found is None:
                found = self._known[key] = _sha256(path)
                if self._notes is not None:
                    self._notes.write_text(json.dumps(self._known), encoding="utf-8")
        return found


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return f"sha256:{digest.hexdigest()}"


def _read_notes(path: Path) -> dict[str, str]:
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(said, dict):
        return {}
    return {str(key): value for key, value in said.items() if isinstance(value, str)}
