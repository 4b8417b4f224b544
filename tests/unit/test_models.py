"""The packaged models: the catalog tells the truth about the files, and a damaged file is not handed out."""

import dataclasses
import hashlib
from pathlib import Path

import pytest
from gguf import GGUFReader
from orchqueue import models

NAMES = sorted(models.catalog())


@pytest.mark.parametrize("name", NAMES)
def test_path_leads_to_the_file_that_the_document_describes(name: str) -> None:
    model = models.catalog()[name]
    content = models.path(name).read_bytes()
    assert hashlib.sha256(content).hexdigest() == model.sha256
    assert len(content) == model.bytes <= 8_000_000
    assert models.digest(name) == f"sha256:{model.sha256}"


@pytest.mark.parametrize("name", NAMES)
def test_document_agrees_with_the_metadata_of_the_file(name: str) -> None:
    model = models.catalog()[name]
    reader = GGUFReader(models.path(name))

    def field(key: str) -> int:
        return int(reader.fields[key].contents())

    assert reader.fields["general.architecture"].contents() == model.architecture
    assert field("llama.context_length") == model.ctx
    assert sum(int(tensor.n_elements) for tensor in reader.tensors) == model.parameters
    width = field("llama.embedding_length") * field("llama.attention.head_count_kv")
    per_layer = 2 * 2 * width // field("llama.attention.head_count")
    assert per_layer * field("llama.block_count") == model.kv_bytes_per_token


def test_longest_token_bytes_bounds_every_token_that_can_be_printed() -> None:
    model = models.catalog()["orchqueue-tiny"]
    fields = GGUFReader(models.path(model.name)).fields
    tokens = fields["tokenizer.ggml.tokens"].contents()
    types = fields["tokenizer.ggml.token_type"].contents()
    printable = [token for token, kind in zip(tokens, types, strict=True) if kind != 3]
    assert max(len(token.encode()) for token in printable) == model.longest_token_bytes


def test_unknown_model_is_refused_with_the_known_names() -> None:
    with pytest.raises(models.UnknownModelError, match="orchqueue-tiny"):
        models.path("no-such-model")


def test_damaged_file_is_refused_with_both_digests(tmp_path: Path) -> None:
    model = models.catalog()["orchqueue-tiny"]
    damaged = tmp_path / model.file
    content = bytearray(models.path(model.name).read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    with pytest.raises(models.DamagedModelError, match=model.sha256):
        models.verify(model, damaged)


def test_missing_file_is_a_damaged_model(tmp_path: Path) -> None:
    model = dataclasses.replace(models.catalog()["orchqueue-tiny"], file="gone.gguf")
    with pytest.raises(models.DamagedModelError, match="reinstall"):
        models.verify(model, tmp_path / model.file)


def test_published_figures_are_of_this_file_and_satisfy_the_acceptance() -> None:
    model = models.catalog()["orchqueue-tiny"]
    assert model.evaluation["gguf_sha256"] == model.sha256
    assert model.evaluation["sampler_profile_version"] == "v1"
    least = {0.0: 0.99, 0.7: 0.97}
    main_series = [row for row in model.evaluation["haiku"] if row["codes"] == "mixed"]
    measured = {(row["form"], row["temperature"]) for row in main_series}
    assert {(form, t) for form in ("chat", "raw prompt") for t in least} <= measured
    for row in main_series:
        assert row["prompts"] >= 200
        assert row["accepted"] >= least.get(row["temperature"], 0.9) * row["prompts"]
