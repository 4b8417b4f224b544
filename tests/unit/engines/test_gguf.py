"""The head of a model file, of the shipped model and of damaged ones."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from orchqueue import models
from orchqueue.engines.gguf import ModelHead, NotGguf, read_head

TINY = models.path("orchqueue-tiny")


def text(value: str) -> bytes:
    raw = value.encode()
    return struct.pack("<Q", len(raw)) + raw


def gguf(**values: bytes) -> bytes:
    """A file with these values, each already typed."""
    pairs = b"".join(text(key.replace("__", ".")) + value for key, value in values.items())
    return b"GGUF" + struct.pack("<IQQ", 3, 0, len(values)) + pairs


def string(value: str) -> bytes:
    return struct.pack("<I", 8) + text(value)


def strings(*values: str) -> bytes:
    return struct.pack("<IIQ", 9, 8, len(values)) + b"".join(text(value) for value in values)


def u32(value: int) -> bytes:
    return struct.pack("<II", 4, value)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "model.gguf"


def test_shipped_model_agrees_with_its_document() -> None:
    known = models.catalog()["orchqueue-tiny"]
    head = read_head(TINY)
    assert (head.architecture, head.ctx) == (known.architecture, known.ctx)
    assert head.quant == known.quant.upper()
    assert head.longest_token_bytes == known.longest_token_bytes


def test_small_file_is_read(file: Path) -> None:
    file.write_bytes(
        gguf(
            general__architecture=string("llama"),
            general__name=string("mine"),
            general__file_type=u32(7),
            llama__context_length=u32(4096),
            tokenizer__ggml__model=string("gpt2"),
            tokenizer__ggml__tokens=strings("a", "hello", "bc"),
            tokenizer__ggml__scores=struct.pack("<IIQ", 9, 6, 3) + bytes(12),
        )
    )
    assert read_head(file) == ModelHead("llama", "mine", "Q8_0", 4096, 5)


@pytest.mark.parametrize(
    "more",
    [
        {"tokenizer__chat_template": string("{{ m.content | trim }}")},
        {"tokenizer__ggml__model": string("bert")},
    ],
)
def test_no_bound_on_a_token_where_text_can_vanish(file: Path, more: dict[str, bytes]) -> None:
    values = {
        "general__architecture": string("llama"),
        "tokenizer__ggml__model": string("gpt2"),
        "tokenizer__ggml__tokens": strings("hello"),
    }
    file.write_bytes(gguf(**values))
    assert read_head(file).longest_token_bytes == 5
    file.write_bytes(gguf(**{**values, **more}))
    assert read_head(file).longest_token_bytes is None


@pytest.mark.parametrize(
    "damage", [b"", b"GGUF", b"NOPE" + bytes(60), b"GGUF" + struct.pack("<IQQ", 9, 0, 0)]
)
def test_damaged_file_is_refused(file: Path, damage: bytes) -> None:
    file.write_bytes(damage)
    with pytest.raises(NotGguf):
        read_head(file)


@given(cut=st.integers(0, 2_000), noise=st.binary(max_size=16))
def test_any_damage_is_refused_or_read(
    tmp_path_factory: pytest.TempPathFactory, cut: int, noise: bytes
) -> None:
    path = tmp_path_factory.mktemp("gguf") / "cut.gguf"
    path.write_bytes(TINY.read_bytes()[:cut] + noise)
    with pytest.raises(NotGguf):
        read_head(path)
