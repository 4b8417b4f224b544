"""Reads the head of a GGUF file: what the daemon must know of a model before an engine has loaded it.

Only the key-value section is read, never the weights. Arrays other than the vocabulary are stepped over.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

MAGIC = b"GGUF"
_NUMBERS = {
    0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d",
}  # fmt: skip
_STRING, _ARRAY = 8, 9
_MAX_KEYS = 65_536
_MAX_STRING = 16_777_216
_MAX_ITEMS = 16_777_216
_TOKENS = "tokenizer.ggml.tokens"
#: Tokenizers in which every byte of the text is a byte of some token.
_BYTE_EXACT = frozenset({"gpt2", "llama"})
_FILE_TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K", 11: "Q3_K_S",
    12: "Q3_K_M", 13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M", 18: "Q6_K",
    32: "BF16",
}  # fmt: skip


class NotGguf(Exception):
    """The file is not a GGUF file that can be read. The message says why."""


@dataclass(frozen=True, slots=True)
class ModelHead:
    """What the head of a model file says."""

    architecture: str
    name: str | None
    quant: str | None
    ctx: int | None
    #: An upper bound on the bytes of one token; `None` where no bound is certain.
    longest_token_bytes: int | None


def read_head(path: Path) -> ModelHead:
    """Reads the head of `path`; raises `NotGguf` or `OSError`."""
    with path.open("rb") as file:
        reader = _Reader(file)
        try:
            values = reader.head()
        except (struct.error, UnicodeDecodeError, MemoryError) as error:
            raise NotGguf(f"`{path}` is damaged") from error
    architecture = values.get("general.architecture")
    if not isinstance(architecture, str):
        raise NotGguf(f"`{path}` does not name its architecture")
    ctx = values.get(f"{architecture}.context_length")
    name = values.get("general.name")
    file_type = values.get("general.file_type")
    return ModelHead(
        architecture=architecture,
        name=name if isinstance(name, str) else None,
        quant=_FILE_TYPES.get(file_type, f"type-{file_type}") if isinstance(file_type, int) else None,
        ctx=ctx if isinstance(ctx, int) and ctx > 0 else None,
        longest_token_bytes=_bound(values, reader.longest_token),
    )


def _bound(values: dict[str, Any], longest: int) -> int | None:
    """No bound where text can vanish before it is tokenised: other tokenizers, templates that trim."""
    template = values.get("tokenizer.chat_template")
    trims = isinstance(template, str) and any(word in template for word in ("trim", "strip", "replace"))
    exact = values.get("tokenizer.ggml.model") in _BYTE_EXACT
    return longest if exact and longest > 0 and not trims else None


class _Reader:
    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        #: Bytes of the longest vocabulary entry as stored: never fewer than it stands for.
        self.longest_token = 0

    def head(self) -> dict[str, Any]:
        if self._file.read(4) != MAGIC:
            raise NotGguf(f"`{self._file.name}` is not a GGUF file")
        version = self._number("<I")
        if version not in (2, 3):
            raise NotGguf(f"`{self._file.name}` has GGUF version {version}; 2 and 3 are known")
        self._number("<Q")
        count = self._number("<Q")
        if count > _MAX_KEYS:
            raise NotGguf(f"`{self._file.name}` is damaged")
        values: dict[str, Any] = {}
        for _ in range(count):
            key = self._string()
            values[key] = self._value(self._number("<I"), key)
        return values

    def _number(self, form: str) -> Any:
        size = struct.calcsize(form)
        return struct.unpack(form, self._file.read(size))[0]

    def _bytes(self) -> bytes:
        size = self._number("<Q")
        data = self._file.read(size) if size <= _MAX_STRING else b""
        if len(data) != size:
            raise NotGguf(f"`{self._file.name}` is damaged")
        return data

    def _string(self) -> str:
        return self._bytes().decode("utf-8")

    def _value(self, kind: int, key: str) -> Any:
        if kind == _STRING:
            return self._string()
        if kind == _ARRAY:
            return self._array(key)
        if kind not in _NUMBERS:
            raise NotGguf(f"`{self._file.name}` holds a value of the unknown type {kind}")
        return self._number(_NUMBERS[kind])

    def _array(self, key: str) -> None:
        kind, count = self._number("<I"), self._number("<Q")
        if count > _MAX_ITEMS or kind == _ARRAY:
            raise NotGguf(f"`{self._file.name}` is damaged")
        if kind == _STRING:
            longest = max((len(self._bytes()) for _ in range(count)), default=0)
            if key == _TOKENS:
                self.longest_token = longest
        elif kind in _NUMBERS:
            self._file.seek(count * struct.calcsize(_NUMBERS[kind]), 1)
        else:
            raise NotGguf(f"`{self._file.name}` holds a value of the unknown type {kind}")
