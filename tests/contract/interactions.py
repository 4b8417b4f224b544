"""What the Python client needs of the daemon, interaction by interaction.

Each entry says what the client does, what goes over the wire and what the client makes of it. The consumer
test plays them against Pact's mock server; the pact file that they give is replayed against the daemon.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from orchqueue import Client, errors
from pact import Pact, match

CONSUMER, PROVIDER = "orchqueue-python", "orchqueue"

# Ids are fixed: the pact file is the same every time, and the daemon's states can be set up by them.
NEW, FINISHED, RUNNING, UNKNOWN = (f"{n}0000000-0000-4000-8000-000000000001" for n in range(1, 5))
SESSION = "50000000-0000-4000-8000-000000000001"
REFUSED = "60000000-0000-4000-8000-000000000001"
ONE_TRIP = "70000000-0000-4000-8000-000000000001"
WAITED = "80000000-0000-4000-8000-000000000001"

#: The task of the state "a finished task", as it was submitted.
FINISHED_BODY = {
    "prompt": "Write a haiku.",
    "max_tokens": 8,
    "seed": 7,
    "temperature": 0,
    "task_id": FINISHED,
}

HEX64 = "[0-9a-f]{64}"
EVENT_ID = r"\d+-[0-9a-f]{16}"
DIGEST = "ab" * 32
STREAM = (
    'event: started\ndata: {"task_id":"70000000-0000-4000-8000-000000000001","queue_position":0,'
    '"predicted_start_ms":0,"determinism":"strict"}\n\n'
    'event: token\nid: 5-0123456789abcdef\ndata: {"t":"Still","i":0}\n\n'
    'event: end\nid: 5-0123456789abcdef-end\ndata: {"tokens_out":1,"decode_ms":3,"finish_reason":"length",'
    '"usage":{"tokens_in":5,"tokens_out":1},"receipt":{}}\n\n'
)
#: The same shape for any text: one `started`, then tokens, metrics and heartbeats, then one terminal.
STREAM_SHAPE = (
    r"^event: started\ndata: \{.*\}\n\n"
    rf"((event: token\nid: {EVENT_ID}\ndata: \{{.*\}}|event: metrics\ndata: \{{.*\}}|:)\n\n)*"
    rf"event: end\nid: {EVENT_ID}-end\ndata: \{{.*\}}\n\n$"
)


@dataclass(frozen=True)
class Interaction:
    """One request of the client and the answer that it relies on."""

    description: str
    request: tuple[str, str]
    status: int
    #: What the client does; what it returns goes to `then`.
    act: Callable[[Client], Any]
    then: Callable[[Any], bool]
    state: str | None = None
    parameters: dict[str, Any] = field(default_factory=dict)
    body: dict[str, Any] | None = None
    accept: str = "application/json"
    #: The answer: a JSON body (with matchers), or the stream.
    answer: Any = None
    headers: dict[str, Any] = field(default_factory=dict)
    #: The code of the exception that the client raises.
    code: str | None = None

    def add_to(self, pact: Pact) -> None:
        """Writes it into a pact."""
        one = pact.upon_receiving(self.description)
        if self.state is not None:
            one = one.given(self.state, self.parameters)
        one = one.with_request(*self.request)
        if self.request[0] == "GET" or self.body is not None:
            one = one.with_header("Accept", self.accept)
        if self.body is not None:
            one = one.with_body(self.body, "application/json")
        one = one.will_respond_with(self.status)
        for name, value in self.headers.items():
            one = one.with_header(name, value)
        if self.answer is STREAM:
            one.with_header("Content-Type", match.regex("text/event-stream", regex="^text/event-stream"))
            one.with_body(STREAM, "text/event-stream")
            one.with_matching_rules(
                {"body": {"$": {"matchers": [{"match": "regex", "regex": STREAM_SHAPE}]}}}
            )
        elif self.answer is not None:
            one.with_body(self.answer, "application/json")


def whole(value: int) -> Any:
    return match.int(value)


def text(value: str) -> Any:
    return match.like(value)


def hex64() -> Any:
    return match.regex(DIGEST, regex=f"^{HEX64}$")


def error(code: str, **more: Any) -> dict[str, Any]:
    return {
        "code": code,
        "message": text("what went wrong"),
        "retriable": errors.BY_CODE[code].CODE in {"ADMISSION_REJECT"},
        "correlation_id": text("6f1c2a"),
        **more,
    }


USAGE = {"tokens_in": whole(5), "tokens_out": whole(8)}
OUTPUT = {
    "text": text("Still water"),
    "finish_reason": match.regex("length", regex="^(stop|length)$"),
    "usage": USAGE,
}
RECEIPT = {
    "task_id": FINISHED,
    "request_digest": hex64(),
    "output_digest": hex64(),
    "output_bytes": whole(11),
    "identity": hex64(),
    "seed": 7,
    "usage": USAGE,
    "key_id": text("1f0c9a4be2d3"),
    "signature": match.regex("ab" * 64, regex="^[0-9a-f]{128}$"),
}
HEALTH = {
    "pool_id": "tiny",
    "state": "ready",
    "live": True,
    "ready": True,
    "draining": False,
    "last_error": None,
    "metrics": {"queue_depth": whole(0), "slots_total": whole(1), "slots_free": whole(1)},
}


def finished(task_id: str) -> dict[str, Any]:
    return {
        "task_id": task_id,
        "state": "finished",
        "priority": "interactive",
        "pool_id": "tiny",
        "attempts": match.each_like(
            {"attempt": whole(1), "replica_id": text("tiny-0"), "outcome": "finished"}, min=1
        ),
        "output": OUTPUT,
        "created_ms": whole(1763632800000),
        "ended_ms": whole(1763632800150),
    }


def task(task_id: str, **more: Any) -> dict[str, Any]:
    return {**FINISHED_BODY, "task_id": task_id, **more}


def refused_code(call: Callable[[], Any]) -> errors.ServerError:
    """The failure that a call raises."""
    try:
        call()
    except errors.ServerError as refusal:
        return refusal
    raise AssertionError("the client took an error for an answer")


TASKS = [
    Interaction(
        "submit a task",
        ("POST", "/v1/tasks"),
        202,
        state="the pool is ready",
        body=task(NEW),
        answer={
            "task_id": NEW,
            "queue_position": whole(0),
            "backoff_ms": whole(0),
        },
        headers={"X-Correlation-Id": text("6f1c2a")},
        act=lambda client: client.submit(**task(NEW)),
        then=lambda submitted: submitted.id == NEW,
    ),
    Interaction(
        "submit a task and wait for it",
        ("POST", "/v1/tasks"),
        200,
        state="the pool is ready",
        body=task(WAITED, wait=True),
        answer=finished(WAITED),
        act=lambda client: client.run(**task(WAITED)),
        then=lambda done: done["output"]["text"] == "Still water",
    ),
    Interaction(
        "submit a task and read its stream",
        ("POST", "/v1/tasks"),
        200,
        state="the pool is ready",
        accept="text/event-stream",
        body=task(ONE_TRIP),
        answer=STREAM,
        act=lambda client: [event.NAME for event in client.stream(**task(ONE_TRIP))],
        then=lambda names: names == ["started", "token", "end"],
    ),
    Interaction(
        "submit a task with an unknown field",
        ("POST", "/v1/tasks"),
        400,
        body=task(REFUSED, max_token=8),
        answer=error("INVALID_PARAMS", reason="unknown_field", hint=text("did you mean `max_tokens`?")),
        act=lambda client: refused_code(lambda: client.submit(**task(REFUSED, max_token=8))),
        then=lambda refusal: refusal.reason == "unknown_field" and not refusal.retriable,
        code="INVALID_PARAMS",
    ),
    Interaction(
        "submit a task for an unknown model",
        ("POST", "/v1/tasks"),
        400,
        state="the pool is ready",
        body=task(REFUSED, model_ref="no-such-model"),
        answer=error("INVALID_PARAMS", reason="unknown_model", hint=text("the models are `orchqueue-tiny`")),
        act=lambda client: refused_code(lambda: client.submit(**task(REFUSED, model_ref="no-such-model"))),
        then=lambda refusal: refusal.reason == "unknown_model",
        code="INVALID_PARAMS",
    ),
    Interaction(
        "submit another task under a taken id",
        ("POST", "/v1/tasks"),
        409,
        state="a finished task",
        body=task(FINISHED, seed=8),
        answer=error("CONFLICT"),
        act=lambda client: refused_code(lambda: client.submit(**task(FINISHED, seed=8))),
        then=lambda refusal: not refusal.retriable,
        code="CONFLICT",
    ),
    Interaction(
        "submit a task to a full queue",
        ("POST", "/v1/tasks"),
        429,
        state="the queue of a class is full",
        parameters={"priority": "tight"},
        body=task(REFUSED, priority="tight"),
        answer=error("ADMISSION_REJECT", policy_label="reject", retry_after_ms=whole(40)),
        headers={
            "Retry-After": match.regex("1", regex=r"^[1-9]\d*$"),
            "X-Backoff-Ms": match.regex("40", regex=r"^\d+$"),
            "X-Queue-Position": match.regex("1", regex=r"^\d+$"),
            "X-Queue-ETA-Ms": match.regex("40", regex=r"^\d+$"),
        },
        act=lambda client: refused_code(lambda: client.submit(**task(REFUSED, priority="tight"))),
        then=lambda refusal: refusal.retriable and refusal.retry_after_ms == 40,
        code="ADMISSION_REJECT",
    ),
    Interaction(
        "read a finished task",
        ("GET", f"/v1/tasks/{FINISHED}"),
        200,
        state="a finished task",
        answer=finished(FINISHED),
        act=lambda client: client.task(FINISHED),
        then=lambda done: done["state"] == "finished",
    ),
    Interaction(
        "read an unknown task",
        ("GET", f"/v1/tasks/{UNKNOWN}"),
        404,
        answer=error("NOT_FOUND"),
        act=lambda client: refused_code(lambda: client.task(UNKNOWN)),
        then=lambda refusal: refusal.http_status == 404,
        code="NOT_FOUND",
    ),
    Interaction(
        "read the stream of a finished task",
        ("GET", f"/v1/tasks/{FINISHED}/stream"),
        200,
        state="a finished task",
        accept="text/event-stream",
        answer=STREAM,
        act=lambda client: [event.NAME for event in client.follow(FINISHED)],
        then=lambda names: names == ["started", "token", "end"],
    ),
    Interaction(
        "cancel a task",
        ("POST", f"/v1/tasks/{RUNNING}/cancel"),
        204,
        state="an accepted task",
        act=lambda client: client.cancel(RUNNING),
        then=lambda nothing: nothing is None,
    ),
    Interaction(
        "list the tasks",
        ("GET", "/v1/tasks"),
        200,
        state="a finished task in the history",
        answer={
            "tasks": match.each_like(
                {
                    "task_id": match.uuid(FINISHED),
                    "state": match.regex("finished", regex="^(queued|started|finished|failed|canceled)$"),
                    "priority": text("interactive"),
                    "created_ms": whole(1763632800000),
                },
                min=1,
            )
        },
        act=lambda client: client.tasks(),
        then=lambda page: page["tasks"][0]["task_id"] == FINISHED,
    ),
]

REST = [
    Interaction(
        "read a signed receipt",
        ("GET", f"/v1/tasks/{FINISHED}/receipt"),
        200,
        state="a finished task",
        answer=RECEIPT,
        act=lambda client: client.receipt(FINISHED),
        then=lambda receipt: receipt["task_id"] == FINISHED,
    ),
    Interaction(
        "list the receipt keys",
        ("GET", "/v1/receipt-keys"),
        200,
        answer={
            "keys": match.each_like(
                {
                    "key_id": text("1f0c9a4be2d3"),
                    "algorithm": "Ed25519",
                    "public_hex": hex64(),
                    "active": match.bool(True),
                },
                min=1,
            )
        },
        act=lambda client: client.receipt_keys(),
        then=lambda answer: answer["keys"][0]["public_hex"] == DIGEST,
    ),
    Interaction(
        "read a session",
        ("GET", f"/v1/sessions/{SESSION}"),
        200,
        state="a session",
        answer={"session_id": SESSION, "ttl_ms_remaining": whole(599000), "turns": whole(1)},
        act=lambda client: client.session(SESSION),
        then=lambda session: session["turns"] == 1,
    ),
    Interaction(
        "end a session",
        ("DELETE", f"/v1/sessions/{SESSION}"),
        204,
        state="a session",
        act=lambda client: client.forget_session(SESSION),
        then=lambda nothing: nothing is None,
    ),
    Interaction(
        "list the pools",
        ("GET", "/v1/pools"),
        200,
        state="the pool is ready",
        answer={"pools": [HEALTH]},
        act=lambda client: client.pools(),
        then=lambda answer: answer["pools"][0]["pool_id"] == "tiny",
    ),
    Interaction(
        "read the health of a pool",
        ("GET", "/v1/pools/tiny/health"),
        200,
        state="the pool is ready",
        answer=HEALTH,
        act=lambda client: client.pool_health("tiny"),
        then=lambda health: health["ready"],
    ),
    Interaction(
        "list the replicas",
        ("GET", "/v1/replicas"),
        200,
        state="the pool is ready",
        answer={
            "replicas": match.each_like(
                {
                    "id": text("tiny-0"),
                    "pool_id": "tiny",
                    "engine": "llamacpp",
                    "state": match.regex("ready", regex="^(ready|reclaiming)$"),
                    "slots_total": whole(1),
                    "in_flight": whole(0),
                },
                min=1,
            )
        },
        act=lambda client: client.replicas(),
        then=lambda answer: answer["replicas"][0]["state"] == "ready",
    ),
    Interaction(
        "list the replica sets",
        ("GET", "/v1/replicasets"),
        200,
        state="the pool is ready",
        answer={
            "replicasets": match.each_like(
                {
                    "id": hex64(),
                    "pool_id": "tiny",
                    "engine": "llamacpp",
                    "engine_version": text("b6123"),
                    "model_digest": match.regex("sha256:" + DIGEST, regex=f"^sha256:{HEX64}$"),
                    "reproducible": match.bool(True),
                    "slots_total": whole(1),
                    "slots_free": whole(1),
                },
                min=1,
            )
        },
        act=lambda client: client.replicasets(),
        then=lambda answer: answer["replicasets"][0]["id"] == DIGEST,
    ),
    Interaction(
        "read the capabilities",
        ("GET", "/v1/capabilities"),
        200,
        state="the pool is ready",
        answer={
            "api_version": "v1",
            "version": text("0.1.0"),
            "engines": match.each_like("llamacpp", min=1),
            "ctx_max": whole(512),
            "workloads": match.each_like("completion", min=1),
            "limits": {"max_body_bytes": whole(8388608)},
        },
        act=lambda client: client.capabilities(),
        then=lambda answer: answer["api_version"] == "v1",
    ),
]

INTERACTIONS = TASKS + REST
