"""The two documents that cross into Rust: what Python makes is accepted there, and means the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from orchqueue import __version__, _core
from orchqueue.adapters import ENGINES, adapter_for
from orchqueue.config import load, runtime_document

PROFILE = {
    "temperature": 0.7, "top_k": 40, "top_p": 0.95, "min_p": 0.05, "typical_p": 1.0, "repeat_penalty": 1.0,
    "repeat_last_n": 64, "presence_penalty": 0.0, "frequency_penalty": 0.0, "seed": 7, "max_tokens": 4,
}  # fmt: skip
INPUT: dict[str, dict[str, Any]] = {
    "completion": {"prompt": "hi"},
    "chat": {"messages": [{"role": "user", "content": "hi"}]},
}
#: The ends of every bound that both sides check.
LOWEST = {
    "server": {
        "max_body_bytes": 1_024,
        "max_header_bytes": 1_024,
        "max_streams": 1,
        "idle_ms": 1,
        "threads": 1,
    },
    "session": {"ttl_ms": 1_000, "max_turns": 1},
    "attempts": {"max": 1, "reclaim_ms": 1},
    "classes": [{"name": "interactive", "weight": 1, "capacity": 1}],
}
HIGHEST = {
    "server": {
        "max_body_bytes": 268_435_456,
        "max_streams": 1_000_000,
        "idle_ms": 86_400_000,
        "threads": 256,
    },
    "session": {"ttl_ms": 600_000, "max_turns": 8},
    "attempts": {"max": 10, "reclaim_ms": 86_400_000},
    "classes": [
        {"name": f"c{number}", "weight": 1_000, "capacity": 1_000_000, "full_policy": "shed-low-priority"}
        for number in range(16)
    ],
}


@pytest.mark.parametrize("hours", [1, 8_784])
@pytest.mark.parametrize("document", [{}, LOWEST, HIGHEST])
def test_runtime_document_is_accepted(tmp_path: Path, document: dict[str, Any], hours: int) -> None:
    path = tmp_path / "c.yaml"
    store = {"url": f"sqlite:///{tmp_path}/x.db", "retention": {"hours": hours}}
    path.write_text(json.dumps({**document, "store": store}))
    key_id, secret_hex, _ = _core.generate_receipt_key()
    made = runtime_document(
        load(path, {}),
        version=__version__,
        control_socket=f"{tmp_path}/c.sock",
        receipt_keys=[{"key_id": key_id, "secret_hex": secret_hex, "active": True}],
    )
    _core.Daemon(json.dumps(made)).shutdown(0)
    # The control: a key that Rust does not know is refused there too.
    with pytest.raises(ValueError, match="sever"):
        _core.Daemon(json.dumps({**made, "sever": {}}))


@pytest.mark.parametrize("engine", ENGINES)
def test_pool_with_the_adapter_s_document_is_accepted(tmp_path: Path, engine: str) -> None:
    config = load(None, {"ORCHQUEUE_STORE__URL": f"sqlite:///{tmp_path}/x.db"})
    daemon = _core.Daemon(json.dumps(runtime_document(config, version=__version__)))
    adapter = adapter_for(engine)
    command = {
        "op": "pool_set",
        "pool": "p",
        "engine": engine,
        "models": ["m"],
        "ctx": 512,
        "workloads": list(adapter.workloads),
        "determinism": "strict",
        "timeouts": {"first_token_ms": 1, "idle_ms": 1, "wall_ms": 1},
        "state": "starting",
        "longest_token_bytes": None,
        "adapter": adapter.document(),
    }
    try:
        daemon.apply(json.dumps(command))
        with pytest.raises(ValueError):
            daemon.apply(json.dumps({**command, "adapter": {"engine": engine}}))
    finally:
        daemon.shutdown(0)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("workload", ["completion", "chat"])
def test_template_is_filled_in(engine: str, workload: str) -> None:
    adapter = adapter_for(engine).document()
    params = {**PROFILE, **INPUT[workload], "stop": ["x"]}
    body = json.loads(_core.render_request(json.dumps(adapter), workload, json.dumps(params)))
    template = adapter["routes"][workload]["body"]
    for name, wanted in template.items():
        if not isinstance(wanted, dict) or not {"$", "$?"} & set(wanted):
            assert body[name] == wanted
        elif (param := wanted.get("$") or wanted["$?"]) in params:
            assert body[name] == params[param]
        else:
            assert name not in body
    del params["seed"]
    with pytest.raises(ValueError, match="seed"):
        _core.render_request(json.dumps(adapter), workload, json.dumps(params))


def event(**fields: Any) -> bytes:
    return b"data: " + json.dumps(fields).encode() + b"\n\n"


def test_llamacpp_completion_stream_is_read() -> None:
    adapter = json.dumps(adapter_for("llamacpp").document())
    chunks = [
        event(index=0, content="plic", tokens=[328], stop=False, tokens_predicted=1, tokens_evaluated=3),
        b":\n\n",
        event(content="", tokens=[0], stop=False, prompt_progress={"total": 3}),
        event(index=0, content="S", tokens=[55], stop=False, tokens_predicted=2, tokens_evaluated=3),
        event(
            content="", tokens=[], stop=True, stop_type="limit", tokens_predicted=2, tokens_evaluated=3,
            timings={"cache_n": 0},
        ),
    ]  # fmt: skip
    read = json.loads(_core.read_stream(adapter, "completion", chunks))
    assert read["text"] == "plicS"
    assert read["end"]["finish_reason"] == "length"
    assert read["end"]["usage"] == {"tokens_in": 3, "tokens_out": 2, "tokens_cached": 0}
    # The control: without its end event the same stream has failed.
    assert "fault" in json.loads(_core.read_stream(adapter, "completion", chunks[:-1]))


def test_llamacpp_error_in_mid_stream_is_a_fault() -> None:
    adapter = json.dumps(adapter_for("llamacpp").document())
    error = {"code": 500, "message": "Context size has been exceeded.", "type": "server_error"}
    chunks = [event(content="x", tokens=[1], stop=False, tokens_predicted=1), event(error=error)]
    assert json.loads(_core.read_stream(adapter, "completion", chunks))["fault"]["class"].lower() == "engine"
