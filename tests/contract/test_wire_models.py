"""What the daemon sends fits the generated models, and it sends nothing that the contract does not list."""

from __future__ import annotations

import json
import uuid
from typing import Any

import httpx
import pytest
from orchqueue import wire_models as wire
from orchqueue.events import SseDecoder, SseFrame
from pydantic import BaseModel, ValidationError

EVENTS: dict[str, type[BaseModel]] = {
    "started": wire.StartedEvent,
    "token": wire.TokenEvent,
    "metrics": wire.MetricsEvent,
    "end": wire.EndEvent,
    "error": wire.ErrorEvent,
}


def unlisted(value: Any, model: Any, path: str = "") -> list[str]:
    """Fields of `value` that its parsed form does not know."""
    if isinstance(model, BaseModel):
        fields = type(model).model_fields
        extra = [f"{path}/{name}" for name in value if name not in fields]
        known = [name for name in value if name in fields]
        return extra + [
            one for name in known for one in unlisted(value[name], getattr(model, name), f"{path}/{name}")
        ]
    if isinstance(model, list):
        return [one for i, item in enumerate(model) for one in unlisted(value[i], item, f"{path}/{i}")]
    return []


def fits(answer: httpx.Response, model: type[BaseModel], status: int = 200) -> Any:
    """Parses an answer; fails on another status and on fields that are not in the contract."""
    assert answer.status_code == status, answer.text
    value = answer.json()
    parsed = model.model_validate(value)
    assert unlisted(value, parsed) == []
    return parsed


def submit(http: httpx.Client, **body: object) -> httpx.Response:
    return http.post("/v1/tasks", json={"prompt": "Write a haiku.", "max_tokens": 8, **body})


def frames(answer: httpx.Response) -> list[SseFrame]:
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/event-stream")
    return list(SseDecoder().feed(answer.content))


@pytest.fixture(scope="module")
def finished(http: httpx.Client) -> str:
    """The id of a task that has finished."""
    return str(fits(submit(http, wait=True, seed=7), wire.Task).task_id)


@pytest.mark.req("ORCH-2001", "ORCH-4010")
def test_an_accepted_task(http: httpx.Client) -> None:
    answer = http.post(
        "/v1/tasks", json={"prompt": "x", "max_tokens": 1}, headers={"X-Correlation-Id": "my-own-1"}
    )
    fits(answer, wire.TaskAccepted, 202)
    assert answer.headers["x-correlation-id"] == "my-own-1"


@pytest.mark.req("ORCH-4001", "ORCH-4003")
def test_a_finished_task(http: httpx.Client, finished: str) -> None:
    task = fits(http.get(f"/v1/tasks/{finished}"), wire.Task)
    assert task.state == "finished"
    assert task.output.usage.tokens_out == 8 or task.output.finish_reason == "stop"
    assert [attempt.outcome for attempt in task.attempts] == ["finished"]


@pytest.mark.req("ORCH-2002", "ORCH-4004", "ORCH-4015")
def test_every_event_of_a_stream(http: httpx.Client) -> None:
    answer = http.post(
        "/v1/tasks", json={"prompt": "x", "max_tokens": 8}, headers={"Accept": "text/event-stream"}
    )
    events = frames(answer)
    for event in events:
        value = json.loads(event.data)
        assert unlisted(value, EVENTS[event.event].model_validate(value)) == [], event
    names = [event.event for event in events]
    assert names[0] == "started" and names[-1] == "end"
    assert names.count("started") == 1 and names.count("end") == 1 and "error" not in names
    tokens = [event for event in events if event.event == "token"]
    assert [json.loads(event.data)["i"] for event in tokens] == list(range(len(tokens)))
    assert all(event.id for event in tokens) and (events[-1].id or "").endswith("-end")


@pytest.mark.req("ORCH-3026", "ORCH-2003")
def test_a_canceled_task_ends_with_its_error(http: httpx.Client) -> None:
    task_id = submit(http, max_tokens=480, ignore_eos=True).json()["task_id"]
    assert http.post(f"/v1/tasks/{task_id}/cancel").status_code == 204
    events = frames(http.get(f"/v1/tasks/{task_id}/stream"))
    assert events[-1].event == "error"
    error = wire.ErrorEvent.model_validate_json(events[-1].data)
    assert error.code == "CANCELED" and not error.retriable
    assert fits(http.get(f"/v1/tasks/{task_id}"), wire.Task).state == "canceled"


@pytest.mark.req("ORCH-4016", "ORCH-4017")
def test_a_signed_receipt_and_its_key(http: httpx.Client, finished: str) -> None:
    receipt = fits(http.get(f"/v1/tasks/{finished}/receipt"), wire.SignedReceipt)
    keys = fits(http.get("/v1/receipt-keys"), wire.ReceiptKeyList).keys
    assert receipt.key_id in {key.key_id for key in keys}
    assert receipt.seed == 7


@pytest.mark.req("ORCH-2004", "ORCH-2005")
def test_a_session_is_read_and_ended(http: httpx.Client) -> None:
    session_id = str(uuid.uuid4())
    assert submit(http, session_id=session_id, wait=True).status_code == 200
    assert fits(http.get(f"/v1/sessions/{session_id}"), wire.Session).turns == 1
    assert http.delete(f"/v1/sessions/{session_id}").status_code == 204
    fits(http.get(f"/v1/sessions/{session_id}"), wire.Error, 404)


@pytest.mark.req("ORCH-4020")
def test_a_chat_completion_whole_and_in_chunks(http: httpx.Client) -> None:
    body = {"model": "orchqueue-tiny", "messages": [{"role": "user", "content": "x"}], "max_tokens": 8}
    fits(http.post("/v1/chat/completions", json=body), wire.ChatCompletion)
    options = {"stream": True, "stream_options": {"include_usage": True}}
    chunks = frames(http.post("/v1/chat/completions", json={**body, **options}))
    assert chunks[-1].data == "[DONE]"
    for chunk in chunks[:-1]:
        value = json.loads(chunk.data)
        assert unlisted(value, wire.ChatCompletionChunk.model_validate(value)) == []
    assert json.loads(chunks[-2].data)["usage"]["completion_tokens"] > 0


@pytest.mark.req("ORCH-4020")
def test_a_plain_completion(http: httpx.Client) -> None:
    body = {"model": "orchqueue-tiny", "prompt": "x", "max_tokens": 8}
    fits(http.post("/v1/completions", json=body), wire.Completion)


@pytest.mark.parametrize(
    ("path", "model"),
    [
        pytest.param("/healthz", wire.Liveness, marks=pytest.mark.req("ORCH-4030")),
        pytest.param("/readyz", wire.Readiness, marks=pytest.mark.req("ORCH-4030")),
        pytest.param("/v1/models", wire.ModelList, marks=pytest.mark.req("ORCH-4021")),
        pytest.param("/v1/replicasets", wire.ReplicaSetList, marks=pytest.mark.req("ORCH-4032")),
        pytest.param("/v1/pools", wire.PoolList, marks=pytest.mark.req("ORCH-4033")),
        pytest.param("/v1/pools/tiny/health", wire.PoolHealth, marks=pytest.mark.req("ORCH-4033")),
        pytest.param("/v1/replicas", wire.ReplicaList, marks=pytest.mark.req("ORCH-4034")),
        pytest.param("/v1/capabilities", wire.Capabilities, marks=pytest.mark.req("ORCH-4035")),
        pytest.param("/v1/tasks?limit=5", wire.TaskList, marks=pytest.mark.req("ORCH-4036")),
    ],
)
def test_what_is_there(http: httpx.Client, path: str, model: type[BaseModel]) -> None:
    fits(http.get(path), model)


@pytest.mark.req("ORCH-2006", "ORCH-4009")
@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/tasks/not-a-uuid", 400),
        ("GET", "/v1/tasks/00000000-0000-4000-8000-000000000000", 404),
        ("PUT", "/v1/tasks", 405),
        ("DELETE", "/v1/receipt-keys", 405),
        ("POST", "/v1/capabilities", 405),
        ("GET", "/v1/nothing-here", 404),
        ("GET", "/v1/pools/none/health", 404),
        ("GET", "/v1/tasks?limit=0", 400),
    ],
)
def test_an_error_has_the_envelope(http: httpx.Client, method: str, path: str, status: int) -> None:
    answer = http.request(method, path)
    error = fits(answer, wire.Error, status)
    assert error.correlation_id == answer.headers["x-correlation-id"]
    if status == 405:
        assert answer.headers["allow"] and error.reason == "method_not_allowed"


@pytest.mark.req("ORCH-4009")
@pytest.mark.parametrize(
    ("content", "media_type", "status", "reason"),
    [
        (b"{", "application/json", 400, None),
        (b'{"prompt":"\xff"}', "application/json", 400, None),
        (b'{"prompt":"x"}', "text/plain", 415, "media_type"),
        (b'{"prompt":"' + b"x" * (9 << 20) + b'"}', "application/json", 413, "body_too_large"),
    ],
)
def test_a_bad_body_is_refused_by_its_kind(
    http: httpx.Client, content: bytes, media_type: str, status: int, reason: str | None
) -> None:
    answer = http.post("/v1/tasks", content=content, headers={"Content-Type": media_type})
    error = fits(answer, wire.Error, status)
    assert error.code == "INVALID_PARAMS" and error.reason == reason


def test_a_field_that_the_contract_does_not_list_is_found() -> None:
    value = {
        "keys": [{"key_id": "a", "algorithm": "Ed25519", "public_hex": "0" * 64, "active": True, "x": 1}]
    }
    assert unlisted(value, wire.ReceiptKeyList.model_validate(value)) == ["/keys/0/x"]
    with pytest.raises(ValidationError):
        wire.ReceiptKeyList.model_validate({"keys": [{"key_id": "a"}]})
