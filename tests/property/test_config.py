"""Whatever a document or the environment holds: loading answers with a configuration or a `ConfigError`."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from orchqueue.config import Config, ConfigError, load, schema

_KEYS = st.sampled_from(
    [
        "server",
        "host",
        "port",
        "store",
        "url",
        "classes",
        "name",
        "pools",
        "id",
        "engine",
        "replicas",
        "declared",
    ]
)
_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.just("llamacpp")
    | st.just("${HOME}"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS | st.text(), inner, max_size=4),
    max_leaves=20,
)
_DOCUMENTS = st.dictionaries(st.sampled_from(["server", "store", "classes", "pools", "log"]), _VALUES)


def try_load(raw: bytes, env: dict[str, str] | None = None) -> Config | ConfigError:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "c.yaml"
        path.write_bytes(raw)
        try:
            return load(path, env or {})
        except ConfigError as error:
            assert error.problems
            assert all(problem.message for problem in error.problems)
            return error


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes(raw: bytes) -> None:
    try_load(raw)


@given(_DOCUMENTS)
def test_any_tree(tree: dict[str, object]) -> None:
    try_load(json.dumps(tree).encode())


@given(
    st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ_0123456789", max_size=20),
    st.sampled_from(["", "SERVER__", "POOLS__0__", "STORE__URL", "CLASSES__1__"]),
    st.text(max_size=30),
)
def test_any_environment(name: str, prefix: str, value: str) -> None:
    try_load(b"pools: [{id: a, engine: llamacpp}]", {f"ORCHQUEUE_{prefix}{name}": value})


@given(_DOCUMENTS)
def test_what_is_accepted_fits_the_schema(tree: dict[str, object]) -> None:
    if isinstance(try_load(json.dumps(tree).encode()), Config):
        jsonschema.validate(tree, schema())


def test_schema_refuses_what_loading_refuses() -> None:
    """The control: the schema is not one that accepts everything."""
    for tree in (
        {"sever": {}},
        {"server": {"port": 70_000}},
        {"pools": [{"id": "a"}]},
        {"pools": [{"id": "a", "engine": "x"}]},
    ):
        assert isinstance(try_load(json.dumps(tree).encode()), ConfigError)
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(tree, schema())
