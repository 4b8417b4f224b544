"""The running daemon keeps the OpenAPI documents: schemathesis asks, in good and in bad ways, and checks all.

Two passes over each document, every operation, every check of schemathesis:

- as written, with bad data: what the contract forbids is refused, with a documented status and the envelope;
- with good data, narrowed to what this daemon has (`SERVED`): what the contract allows is then accepted.
  Without that a valid body may name a model or a context that no pool has, and a refusal proves nothing.

No operation is left out.
"""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from orchqueue.testing import LiveDaemon

from contracts import CONTRACTS, OPENAPI_DOCUMENTS, load, walk

SETTINGS = Path(__file__).with_name("schemathesis.toml")
MODEL = "orchqueue-tiny"

#: Properties of requests, narrowed to what the daemon of these tests serves.
SERVED: dict[str, dict[str, Any]] = {
    "TaskRequest": {
        # A session has 8 turns, after which the same request is refused: sessions have a test of their own.
        "session_id": False,
        "workload": {"enum": ["completion", "chat"]},
        "model_ref": {"const": MODEL},
        "engine": {"const": "llamacpp"},
        "ctx": {"type": "integer", "minimum": 1, "maximum": 512},
        "priority": {"enum": ["interactive", "batch"]},
        "prompt": {"type": "string", "minLength": 1, "maxLength": 40},
        "inputs": False,
        "max_tokens": {"type": "integer", "minimum": 1, "maximum": 16},
        "deadline_ms": {"type": "integer", "minimum": 600_000, "maximum": 604_800_000},
    },
    # What it makes of schemas and tool calls is for the engine to say.
    "ChatMessage": {"tool_calls": False},
    "OpenAiMessage": {"tool_calls": False},
    "ResponseFormat": {"json_schema": {"const": {"name": "x", "schema": {"type": "object"}}}},
    "Tool": {"function": {"const": {"name": "x", "parameters": {"type": "object"}}}},
    "ChatCompletionRequest": {
        "model": {"const": MODEL},
        "max_tokens": {"type": "integer", "minimum": 1, "maximum": 16},
        "max_completion_tokens": False,
    },
    "CompletionRequest": {
        "model": {"const": MODEL},
        "prompt": {"type": "string", "minLength": 1, "maxLength": 40},
        "max_tokens": {"type": "integer", "minimum": 1, "maximum": 16},
        "max_completion_tokens": False,
    },
}
#: The same for parameters. `after` is a cursor that only the daemon can make.
SERVED_PARAMETERS: dict[str, dict[str, Any]] = {
    "X-Orchqueue-Priority": {"enum": ["interactive", "batch"]},
    "X-Orchqueue-Deadline-Ms": {"type": "integer", "minimum": 600_000, "maximum": 604_800_000},
}
ISSUED_PARAMETERS = {"after"}
#: Fields that are ignored take anything but a number beyond 2^53, which no body may hold; the same goes for
#: unknown members of the objects that take them.
IGNORED = {"type": "string", "description": "Ignored."}
#: Without these a request would take their defaults, which are larger than what is served in a short test.
NEEDED = {
    "TaskRequest": ["max_tokens"],
    "ChatCompletionRequest": ["max_tokens"],
    "CompletionRequest": ["max_tokens"],
}


def narrowed(document: dict[str, Any]) -> dict[str, Any]:
    """The document with the requests that this daemon can serve."""
    document = copy.deepcopy(document)
    for name, properties in SERVED.items():
        schema = document["components"]["schemas"].get(name)
        if schema is not None:
            schema["properties"].update(properties)
            schema["required"] = sorted({*schema.get("required", []), *NEEDED.get(name, [])})
    for path, node in walk(document):
        if isinstance(node.get("parameters"), list):
            node["parameters"] = [
                one for one in node["parameters"] if one.get("name") not in ISSUED_PARAMETERS
            ]
        if node.get("title") == "StreamOptions" or path[-1:] == ("OpenAiTextPart",):
            node["additionalProperties"] = False
        if node == {"description": IGNORED["description"]}:
            node.update(IGNORED)
        if node.get("in") == "header" and node.get("name") in SERVED_PARAMETERS:
            node["schema"] = SERVED_PARAMETERS[node["name"]]
    return document


def run(location: Path, url: str, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(SETTINGS), "run", str(location)]
    command += ["--url", url, "--no-color", *options]
    return subprocess.run(command, capture_output=True, text=True, cwd=location.parent, timeout=110)


@pytest.fixture
def served(tmp_path: Path) -> Path:
    """The narrowed documents, side by side as they refer to each other."""
    for name in OPENAPI_DOCUMENTS:
        (tmp_path / name).write_text(yaml.safe_dump(narrowed(load(f"openapi/{name}")), sort_keys=False))
    return tmp_path


@pytest.mark.req("ORCH-4008", "ORCH-4009", "ORCH-2006")
@pytest.mark.parametrize("name", OPENAPI_DOCUMENTS)
def test_what_the_contract_forbids_is_refused(name: str, daemon: LiveDaemon) -> None:
    options = ("--mode", "negative", "--phases", "coverage,fuzzing")
    done = run(CONTRACTS / "openapi" / name, daemon.url, *options)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("name", OPENAPI_DOCUMENTS)
def test_what_the_contract_allows_is_accepted(name: str, daemon: LiveDaemon, served: Path) -> None:
    done = run(served / name, daemon.url, "--mode", "positive")
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


def test_a_daemon_that_answers_otherwise_is_caught(daemon: LiveDaemon, served: Path) -> None:
    document = served / "control.yaml"
    document.write_text(document.read_text().replace("const: ok", "const: splendid"))
    done = run(document, daemon.url, "--mode", "positive", "--include-path", "/healthz")
    assert done.returncode == 1
    assert '"splendid" was expected' in done.stdout
