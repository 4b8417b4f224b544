"""Where a model is found and when its digest is computed."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from orchqueue import models
from orchqueue.pools import catalog
from orchqueue.pools.catalog import Digests, ModelUnavailable, find_model
from orchqueue.pools.device import device_class

TINY = models.catalog()["orchqueue-tiny"]


@pytest.mark.parametrize("reference", [TINY.name, TINY.digest])
def test_catalog_model_by_name_and_by_digest(reference: str) -> None:
    model = find_model(reference)
    assert (model.name, model.digest, model.ctx) == (TINY.name, TINY.digest, TINY.ctx)
    assert model.path == models.path(TINY.name)
    assert model.longest_token_bytes == TINY.longest_token_bytes


def test_model_by_path() -> None:
    model = find_model(str(models.path(TINY.name)))
    assert (model.name, model.digest, model.ctx) == (TINY.file.removesuffix(".gguf"), None, TINY.ctx)


@pytest.mark.parametrize("reference", ["sha256:abc", "repo:me/mine", "no-such-model", "", "a\0b"])
def test_unknown_model_is_told_with_what_to_write(reference: str) -> None:
    with pytest.raises(ModelUnavailable, match=r"GGUF"):
        find_model(reference)


def test_file_that_is_no_model(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    path.write_text("hello")
    with pytest.raises(ModelUnavailable, match="is not a GGUF file"):
        find_model(str(path))


def test_digest_is_computed_once_per_state_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed: list[Path] = []
    whole = catalog._sha256
    monkeypatch.setattr(catalog, "_sha256", lambda path: computed.append(path) or whole(path))
    model, notes = tmp_path / "m.gguf", tmp_path / "digests.json"
    model.write_bytes(b"one")
    expected = f"sha256:{hashlib.sha256(b'one').hexdigest()}"
    assert Digests(notes).digest(model) == expected
    assert Digests(notes).digest(model) == expected
    assert len(computed) == 1
    model.write_bytes(b"two")
    os.utime(model, ns=(1, 1))
    assert Digests(notes).digest(model) != expected
    assert len(computed) == 2


def test_damaged_notes_are_forgotten(tmp_path: Path) -> None:
    notes, model = tmp_path / "digests.json", tmp_path / "m"
    notes.write_text("[1]")
    model.write_bytes(b"")
    assert Digests(notes).digest(model) == f"sha256:{hashlib.sha256(b'').hexdigest()}"


def test_device_class_is_made_of_what_kernels_choose_by() -> None:
    cpuinfo = "processor : 0\nflags\t\t: fpu avx2 avx hypervisor fma\nprocessor : 1\nflags : sse\n"
    assert device_class(cpuinfo, "x86_64") == "cpu:x86_64:avx,avx2,fma"
    assert device_class("Features : asimd i8mm crc32", "aarch64") == "cpu:aarch64:asimd,i8mm"
    assert device_class("", "x86_64") == "cpu:x86_64:"
    assert device_class() == device_class()
