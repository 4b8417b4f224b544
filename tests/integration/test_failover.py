"""Verified mid-stream failover: a strict task whose replica dies goes on elsewhere, byte for byte."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from orchqueue import Client, Token
from orchqueue.testing import LiveDaemon

PROMPT = "Tell me everything."
SEED = 11
TOKENS = 500


@pytest.fixture(scope="module")
def live(slow_model: Path) -> Iterator[LiveDaemon]:
    pool = {
        "id": "slow",
        "engine": "llamacpp",
        "model": str(slow_model),
        "ctx": 1024,
        "determinism": "strict",
        "timeouts": {"idle_ms": 2_000},
        "replicas": [{"spawn": "embedded", "count": 2}],
    }
    with LiveDaemon({"pools": [pool]}) as daemon:
        yield daemon


@pytest.fixture(scope="module")
def undisturbed(live: LiveDaemon) -> tuple[str, str]:
    """Text and output digest of the same request when nothing happens."""
    with live.client() as client:
        task = client.run(PROMPT, seed=SEED, max_tokens=TOKENS, ignore_eos=True)
    return task["output"]["text"], task["receipt"]["output_digest"]


def holder_of(live: LiveDaemon, client: Client, task_id: str) -> int:
    """The process that decodes the task now."""
    name = client.task(task_id)["attempts"][-1]["replica_id"]
    replicas = httpx.get(f"{live.url}/v1/replicas").json()["replicas"]
    return next(replica["pid"] for replica in replicas if replica["id"] == name)


def disturbed_run(live: LiveDaemon, after: int, number: signal.Signals) -> tuple[str, dict[str, object], int]:
    """Streams the task and sends a signal to its replica after some tokens; text, receipt and victim."""
    victim = 0
    text = ""
    with live.client() as client:
        stream = client.stream(PROMPT, seed=SEED, max_tokens=TOKENS, ignore_eos=True)
        for count, event in enumerate((e for e in stream if isinstance(e, Token)), start=1):
            text += event.text
            if count == after:
                victim = holder_of(live, client, stream.task_id)
                os.kill(victim, number)
        assert stream.terminal is not None
        return text, client.receipt(stream.task_id), victim


# req: ORCH-4005
@pytest.mark.parametrize("after", [1, 7, 40, 100])
def test_a_killed_replica_is_replaced_and_the_reader_never_notices(
    live: LiveDaemon, undisturbed: tuple[str, str], after: int
) -> None:
    live.wait_ready()
    text, receipt, _ = disturbed_run(live, after, signal.SIGKILL)
    assert text == undisturbed[0]
    assert receipt["output_digest"] == undisturbed[1]
    assert [attempt["outcome"] for attempt in receipt["attempts"]] == ["failed", "finished"]
    assert receipt["usage"]["tokens_out"] == TOKENS


def test_a_frozen_replica_is_replaced_after_the_idle_timeout(
    live: LiveDaemon, undisturbed: tuple[str, str]
) -> None:
    live.wait_ready()
    text, receipt, victim = disturbed_run(live, 20, signal.SIGSTOP)
    os.kill(victim, signal.SIGKILL)
    assert text == undisturbed[0]
    assert receipt["output_digest"] == undisturbed[1]
    assert [attempt["outcome"] for attempt in receipt["attempts"]] == ["timed_out", "finished"]


def test_what_is_decoded_again_is_counted_apart(live: LiveDaemon, undisturbed: tuple[str, str]) -> None:
    live.wait_ready()

    def totals() -> dict[str, float]:
        found: dict[str, float] = {}
        for line in httpx.get(f"{live.url}/metrics").text.splitlines():
            if line.startswith(("tokens_out_total{", "tokens_redecoded_total{", "failovers_total{")):
                name, value = line.split("{")[0], float(line.rsplit(" ", 1)[1])
                found[name] = found.get(name, 0) + value
        return found

    before = totals()
    disturbed_run(live, 50, signal.SIGKILL)
    after = totals()
    grown = {name: after[name] - before.get(name, 0) for name in after}
    assert grown["failovers_total"] == 1
    assert 40 <= grown["tokens_redecoded_total"] <= 300
    assert grown["tokens_out_total"] == pytest.approx(TOKENS, abs=4)


def test_a_cancel_reaches_the_attempt_that_took_over(live: LiveDaemon) -> None:
    live.wait_ready()
    names = []
    body = {"prompt": PROMPT, "seed": SEED, "max_tokens": 900, "ignore_eos": True}
    with live.client() as client, httpx.Client(base_url=live.url, timeout=60) as http:
        with http.stream("POST", "/v1/tasks", json=body, headers={"accept": "text/event-stream"}) as answer:
            task_id = answer.headers["x-orchqueue-task-id"]
            for line in answer.iter_lines():
                if not line.startswith("event: "):
                    continue
                names.append(line.removeprefix("event: "))
                if names.count("token") == 5 and names[-1] == "token":
                    os.kill(holder_of(live, client, task_id), signal.SIGKILL)
                if names.count("token") == 12 and names[-1] == "token":
                    client.cancel(task_id)
        task = client.task(task_id)
    assert names[-1] == "error"
    assert task["error"]["code"] == "CANCELED"
    assert json.dumps(task["attempts"]).count("canceled") == 1
