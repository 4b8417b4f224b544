"""Bad input of every kind: the status, the code, and a message that says what to do."""

import json
import uuid
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from orchqueue.testing import LiveDaemon

JSON = {"content-type": "application/json"}


@dataclass(frozen=True)
class Bad:
    """A request that is refused, and how."""

    name: str
    status: int
    code: str
    #: All of these stand in the message or the hint.
    says: tuple[str, ...]
    content: bytes = b""
    method: str = "POST"
    path: str = "/v1/tasks"
    headers: dict[str, str] = field(default_factory=lambda: dict(JSON))


def task(**fields: Any) -> bytes:
    return json.dumps(fields).encode()


UNKNOWN = uuid.UUID(int=7)
TABLE = [
    Bad("unknown field", 400, "INVALID_PARAMS", ("`sead`", "`seed`"), task(prompt="Hi", sead=1)),
    Bad("oversize body", 413, "INVALID_PARAMS", ("bytes",), task(prompt="x" * 5_000_000)),
    Bad("bad JSON", 400, "INVALID_PARAMS", ("JSON",), b'{"prompt": "Hi"'),
    Bad("empty body", 400, "INVALID_PARAMS", ("JSON",), b""),
    Bad("not an object", 400, "INVALID_PARAMS", ("object",), b"[]"),
    Bad("bad UTF-8", 400, "INVALID_PARAMS", ("UTF-8",), b'{"prompt": "\xff\xfe"}'),
    Bad("wrong type", 400, "INVALID_PARAMS", ("`prompt`",), task(prompt=3)),
    Bad(
        "wrong type of a number", 400, "INVALID_PARAMS", ("`max_tokens`",), task(prompt="Hi", max_tokens="8")
    ),
    Bad("key twice", 400, "INVALID_PARAMS", ("`seed`",), b'{"prompt":"Hi","seed":1,"seed":2}'),
    Bad("no prompt", 400, "INVALID_PARAMS", ("`prompt`",), task(seed=1)),
    Bad("seed too large", 400, "INVALID_PARAMS", ("`seed`",), task(prompt="Hi", seed=2**31)),
    Bad("more than one answer", 400, "INVALID_PARAMS", ("`n`",), task(prompt="Hi", n=2)),
    Bad("more tokens than the context", 400, "INVALID_PARAMS", ("512",), task(prompt="Hi", max_tokens=513)),
    Bad(
        "prompt beyond the context",
        400,
        "INVALID_PARAMS",
        ("512",),
        task(prompt="word " * 20_000, max_tokens=1),
    ),
    Bad(
        "unknown model",
        400,
        "INVALID_PARAMS",
        ("`nothing`", "orchqueue-tiny"),
        task(prompt="Hi", model_ref="nothing"),
    ),
    Bad(
        "unknown class",
        400,
        "INVALID_PARAMS",
        ("`urgent`", "interactive"),
        task(prompt="Hi", priority="urgent"),
    ),
    Bad("bad task id", 400, "INVALID_PARAMS", ("`task_id`",), task(prompt="Hi", task_id="7")),
    Bad(
        "wrong media type",
        415,
        "INVALID_PARAMS",
        ("application/json",),
        task(prompt="Hi"),
        headers={"content-type": "text/plain"},
    ),
    Bad(
        "unknown task",
        404,
        "NOT_FOUND",
        ("no such task",),
        method="GET",
        path=f"/v1/tasks/{UNKNOWN}",
        headers={},
    ),
    Bad(
        "cancel of an unknown task",
        404,
        "NOT_FOUND",
        ("no such task",),
        path=f"/v1/tasks/{UNKNOWN}/cancel",
        headers={},
    ),
    Bad("not a task id", 400, "INVALID_PARAMS", ("UUID",), method="GET", path="/v1/tasks/seven", headers={}),
    Bad("unknown path", 404, "NOT_FOUND", ("`/v1/taks`",), method="GET", path="/v1/taks", headers={}),
    Bad("wrong method", 405, "INVALID_PARAMS", ("method",), task(prompt="Hi"), method="PUT"),
    Bad(
        "bad last event id",
        400,
        "INVALID_PARAMS",
        ("Last-Event-ID",),
        task(prompt="Hi"),
        headers={**JSON, "accept": "text/event-stream", "last-event-id": "x"},
    ),
]


# req: ORCH-3014, ORCH-4008, ORCH-4009
@pytest.mark.parametrize("bad", TABLE, ids=[bad.name for bad in TABLE])
def test_bad_input_is_refused_and_says_what_to_do(live: LiveDaemon, bad: Bad) -> None:
    answer = httpx.request(bad.method, f"{live.url}{bad.path}", content=bad.content, headers=bad.headers)
    assert answer.status_code == bad.status, answer.text
    assert answer.headers["content-type"].startswith("application/json")
    error = answer.json()
    assert error["code"] == bad.code
    assert error["retriable"] is False
    assert error["correlation_id"] == answer.headers["x-correlation-id"]
    said = f"{error['message']} {error.get('hint', '')}"
    for part in bad.says:
        assert part in said, said


def test_wrong_method_names_the_right_ones(live: LiveDaemon) -> None:
    answer = httpx.put(f"{live.url}/v1/tasks", json={})
    assert "POST" in answer.headers["allow"]


def test_the_daemon_goes_on_after_all_of_it(live: LiveDaemon) -> None:
    for bad in TABLE:
        httpx.request(bad.method, f"{live.url}{bad.path}", content=bad.content, headers=bad.headers)
    with live.client() as client:
        assert client.run("Hi", max_tokens=4)["state"] == "finished"
