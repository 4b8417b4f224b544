"""The commands that talk to a daemon, against a callable in its place."""

import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest
from orchqueue.client_sync import TaskStream

from .conftest import Cli

TASK = "0f8fad5b-d9cb-469f-a165-70867728950e"
STARTED = ("started", None, {"queue_position": 0, "determinism": "strict"})
TOKENS = (("token", "5-aa", {"t": "Hello", "i": 0}), ("token", "7-bb", {"t": " you", "i": 1}))
END = (
    "end",
    "7-bb-end",
    {"tokens_out": 2, "decode_ms": 3, "finish_reason": "stop", "receipt": {"output_digest": "ab" * 32}},
)
CANCELED = ("error", None, {"code": "WORKER_RESET", "message": "the replica died", "retriable": True})


def stream(*events: tuple[str, str | None, dict[str, Any]]) -> httpx.Response:
    text = ""
    for name, event_id, data in events:
        text += (
            f"event: {name}\n" + (f"id: {event_id}\n" if event_id else "") + f"data: {json.dumps(data)}\n\n"
        )
    return httpx.Response(200, headers={"content-type": "text/event-stream"}, text=text)


def refusal(status: int, code: str, **fields: Any) -> httpx.Response:
    return httpx.Response(status, json={"code": code, "message": "why", "retriable": False, **fields})


def test_submit_prints_the_text_and_a_summary(cli: Cli) -> None:
    cli.daemon(lambda _: stream(STARTED, *TOKENS, END))
    outcome = cli.run("submit", "Hi", "--seed", "7", "--model", "m", "--task-id", TASK)
    assert outcome.code == 0
    assert outcome.out == "Hello you\n"
    assert re.search(r"2 tokens in \d+\.\d\d s, 667 tokens/s · finish: stop", outcome.err)
    assert f"digest: {'ab' * 8} · task: {TASK}" in outcome.err
    assert json.loads(cli.requests[0].content) == {
        "prompt": "Hi",
        "seed": 7,
        "model_ref": "m",
        "task_id": TASK,
    }


def test_submit_json_is_one_event_a_line(cli: Cli) -> None:
    cli.daemon(lambda _: stream(STARTED, *TOKENS, END))
    outcome = cli.run("submit", "Hi", "--json")
    assert outcome.documents == [
        {"event": name, "id": event_id, "data": data} for name, event_id, data in (STARTED, *TOKENS, END)
    ]
    assert outcome.err == ""


def test_submit_reads_the_prompt_from_standard_input(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    monkeypatch.setattr("sys.stdin", io.StringIO("from a pipe"))
    cli.daemon(lambda _: stream(STARTED, END))
    assert cli.run("submit", "-").code == 0
    assert json.loads(cli.requests[0].content)["prompt"] == "from a pipe"


def test_submit_that_fails_mid_stream_keeps_the_text_and_says_why(cli: Cli) -> None:
    cli.daemon(lambda _: stream(STARTED, TOKENS[0], CANCELED))
    outcome = cli.run("submit", "Hi")
    assert outcome.code == 1
    assert outcome.out == "Hello\n"
    assert outcome.err == "error: WORKER_RESET: the replica died\nhint: try again\n"


def test_submit_json_that_fails_ends_with_the_error_event(cli: Cli) -> None:
    cli.daemon(lambda _: stream(STARTED, TOKENS[0], CANCELED))
    outcome = cli.run("submit", "Hi", "--json")
    assert outcome.code == 1
    assert outcome.documents[-1]["event"] == "error"
    assert outcome.documents[-1]["data"]["code"] == "WORKER_RESET"


def test_submit_refused_before_the_stream(cli: Cli) -> None:
    cli.daemon(lambda _: refusal(429, "ADMISSION_REJECT", retriable=True, retry_after_ms=2000))
    assert cli.run("submit", "Hi").err.endswith("hint: try again in 2.0 s\n")
    outcome = cli.run("submit", "Hi", "--json")
    assert outcome.code == 4
    assert outcome.documents[0]["data"]["code"] == "ADMISSION_REJECT"
    assert len(cli.requests) == 2


def test_submit_without_a_daemon(cli: Cli) -> None:
    def away(_: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    cli.daemon(away)
    outcome = cli.run("submit", "Hi")
    assert outcome.code == 3
    assert "orchqueue serve" in outcome.err
    assert cli.run("submit", "Hi", "--json").documents[0]["error"]["message"].startswith("no daemon answers")


def test_interrupt_cancels_the_task(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(204) if request.url.path.endswith("/cancel") else stream(STARTED, *TOKENS, END)

    read = TaskStream.__next__

    def interrupted(self: TaskStream) -> Any:
        if self.text == "Hello":
            raise KeyboardInterrupt
        return read(self)

    monkeypatch.setattr(TaskStream, "__next__", interrupted)
    cli.daemon(answer)
    outcome = cli.run("submit", "Hi", "--task-id", TASK)
    assert outcome.code == 130
    assert (outcome.out, outcome.err) == ("Hello\n", f"canceled: task `{TASK}`\n")
    assert [request.url.path for request in cli.requests] == ["/v1/tasks", f"/v1/tasks/{TASK}/cancel"]


def test_interrupt_of_a_task_that_has_not_arrived_is_still_130(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(self: TaskStream) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(TaskStream, "__next__", interrupted)
    cli.daemon(lambda _: refusal(404, "NOT_FOUND"))
    assert cli.run("submit", "Hi").code == 130


def test_task_shows_state_and_output(cli: Cli) -> None:
    task = {
        "task_id": TASK,
        "state": "finished",
        "priority": "interactive",
        "attempts": [{"attempt": 1, "replica_id": "tiny-0", "outcome": "finished"}],
        "output": {"text": "Hello", "finish_reason": "stop", "usage": {"tokens_in": 3, "tokens_out": 2}},
        "created_ms": 1_763_632_800_000,
        "ended_ms": 1_763_632_800_150,
    }
    cli.daemon(lambda _: httpx.Response(200, json=task))
    assert cli.run("task", TASK).out == (
        f"task_id: {TASK}\n"
        "state: finished\n"
        "priority: interactive\n"
        "created: 2025-11-20 10:00:00.000 UTC\n"
        "ended: 2025-11-20 10:00:00.150 UTC\n"
        "attempt 1: tiny-0, finished\n"
        "finish: stop\n"
        "tokens: 3 in, 2 out\n"
        "output:\n"
        "Hello\n"
    )
    assert cli.run("task", TASK, "--json").documents == [task]


def test_task_that_failed_shows_its_error(cli: Cli) -> None:
    error = {"code": "WORKER_RESET", "message": "gone"}
    cli.daemon(lambda _: httpx.Response(200, json={"task_id": TASK, "state": "failed", "error": error}))
    assert "error: WORKER_RESET: gone\n" in cli.run("task", TASK).out


def test_unknown_task_is_a_failure_with_a_json_form(cli: Cli) -> None:
    cli.daemon(lambda _: refusal(404, "NOT_FOUND", correlation_id="c-1"))
    assert cli.run("task", TASK).code == 1
    assert cli.run("task", TASK, "--json").documents == [
        {
            "error": {
                "message": "NOT_FOUND: why",
                "code": "NOT_FOUND",
                "retriable": False,
                "correlation_id": "c-1",
            }
        }
    ]


def test_cancel_prints_the_state_afterwards(cli: Cli) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        return (
            httpx.Response(204)
            if request.method == "POST"
            else httpx.Response(200, json={"state": "canceled"})
        )

    cli.daemon(answer)
    assert cli.run("cancel", TASK).out == f"task `{TASK}`: canceled\n"
    assert cli.run("cancel", TASK, "--json").documents == [{"task_id": TASK, "state": "canceled"}]


def test_pools_is_a_table(cli: Cli) -> None:
    pool = {
        "pool_id": "tiny",
        "state": "ready",
        "last_error": None,
        "metrics": {"queue_depth": 0, "slots_total": 2, "slots_free": 1},
    }
    cli.daemon(lambda _: httpx.Response(200, json={"pools": [pool]}))
    assert cli.run("pools").out == (
        "POOL  STATE  QUEUED  FREE SLOTS  LAST ERROR\ntiny  ready  0       1/2         -\n"
    )
    assert cli.run("pools", "--json").documents == [{"pools": [pool]}]


def test_replicas_is_a_table(cli: Cli) -> None:
    replica = {
        "id": "tiny-0",
        "pool_id": "tiny",
        "state": "ready",
        "in_flight": 0,
        "slots_total": 1,
        "engine": "llamacpp",
        "engine_version": "1",
        "model_digest": f"sha256:{'cd' * 32}",
        "replicaset_id": "ab" * 32,
    }
    cli.daemon(lambda _: httpx.Response(200, json={"replicas": [replica]}))
    assert cli.run("replicas").out.splitlines()[1].split() == [
        "tiny-0", "tiny", "ready", "0/1", "llamacpp", "1", "cdcdcdcdcdcd", "abababababab",
    ]  # fmt: skip


def test_verify_needs_a_file_or_an_id(cli: Cli) -> None:
    outcome = cli.run("verify", "nothing.json")
    assert outcome.code == 2
    assert "neither a file nor the id of a task" in outcome.err


def test_verify_refuses_what_is_not_json(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "receipt.json"
    path.write_text("{")
    outcome = cli.run("verify", str(path))
    assert outcome.code == 1
    assert "is not a receipt: it is not JSON" in outcome.err
