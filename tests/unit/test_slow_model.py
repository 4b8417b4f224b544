"""The slow model: the same arguments give the same bytes, and only printable ASCII can come out."""

import importlib.util
import json
import sys
import urllib.request
from pathlib import Path
from types import ModuleType

import pytest
from gguf import GGUFReader

SOURCE = Path(__file__).parents[2] / "test-harness" / "slow_model.py"
SMALL = {"hidden": 128, "layers": 2, "ctx": 256}


@pytest.fixture(scope="module")
def slow_model() -> ModuleType:
    spec = importlib.util.spec_from_file_location("slow_model", SOURCE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["slow_model"] = module
    spec.loader.exec_module(module)
    return module


def test_same_arguments_write_the_same_bytes(slow_model: ModuleType, tmp_path: Path) -> None:
    first = slow_model.write(slow_model.Shape(**SMALL), tmp_path / "first.gguf")
    second = slow_model.write(slow_model.Shape(**SMALL), tmp_path / "second.gguf")
    other = slow_model.write(slow_model.Shape(**SMALL, seed=8), tmp_path / "other.gguf")
    assert first.sha256 == second.sha256
    assert first.sha256 != other.sha256


def test_default_shape_has_some_95_million_parameters(slow_model: ModuleType) -> None:
    shape = slow_model.Shape()
    width = shape.kv_heads * slow_model.HEAD_WIDTH
    layer = 2 * shape.hidden**2 + 2 * shape.hidden * width + 3 * shape.hidden * shape.ffn
    assert 94e6 < shape.layers * layer < 96e6


def test_metadata_states_the_shape_and_the_whole_byte_alphabet(
    slow_model: ModuleType, tmp_path: Path
) -> None:
    written = slow_model.write(slow_model.Shape(**SMALL), tmp_path / "small.gguf")
    fields = GGUFReader(written.path).fields
    assert fields["llama.context_length"].contents() == SMALL["ctx"]
    assert fields["llama.embedding_length"].contents() == SMALL["hidden"]
    tokens = fields["tokenizer.ggml.tokens"].contents()
    assert len(tokens) == len(set(tokens))
    assert set(slow_model.byte_alphabet()) < set(tokens)


@pytest.mark.parametrize("wrong", [{"hidden": 100}, {"hidden": 0}, {"layers": 0}, {"ctx": 0}])
def test_impossible_shape_is_refused(slow_model: ModuleType, wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be"):
        slow_model.Shape(**wrong)


def test_real_engine_prints_printable_ascii_until_max_tokens(slow_model: ModuleType, tmp_path: Path) -> None:
    xllamacpp = pytest.importorskip("xllamacpp")
    written = slow_model.write(slow_model.Shape(**SMALL), tmp_path / "small.gguf")
    params = xllamacpp.CommonParams()
    params.model.path = written.path
    params.hostnames, params.port = ["127.0.0.1"], 0
    params.n_ctx, params.n_parallel = SMALL["ctx"], 1
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.fit_params, params.ui, params.verbosity = False, False, 0
    server = xllamacpp.Server(params)
    # No sampler narrows the choice: what can be printed at all is printed.
    body = {"prompt": "the queue", "n_predict": 200, "temperature": 3.0, "seed": 5}
    body |= {"top_k": 0, "top_p": 1.0, "min_p": 0.0}
    request = urllib.request.Request(  # noqa: S310 - a loopback address
        f"{server.listening_address}/completion", json.dumps(body).encode()
    )
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
        document = json.load(answer)
    del server
    assert document["tokens_predicted"] == 200
    assert document["stop_type"] == "limit"
    assert all(" " <= char <= "~" for char in document["content"])
    assert len(set(document["content"])) > 60
