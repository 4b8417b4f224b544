"""The command line as its user sees it: whole transcripts, with what changes from run to run replaced."""

import json
import os
import re
import signal
import subprocess
from pathlib import Path

import pytest
from orchqueue import Client
from orchqueue.testing import LiveDaemon
from syrupy.assertion import SnapshotAssertion

from .conftest import Run, command

TASK = "0f8fad5b-d9cb-469f-a165-70867728950e"
PROMPT = "Write one line about the sea."

#: What differs between two runs, machines or builds, in the order in which it is replaced.
VOLATILE = (
    (r"http://127\.0\.0\.1:\d+", "http://127.0.0.1:PORT"),
    (r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", "UUID"),
    (r"\b[0-9a-f]{64}\b", "SHA256"),
    (r"\b[0-9a-f]{12,16}\b", "HEX"),
    (r"\d+ tokens in \d+\.\d+ s, \d+ tokens/s", "N tokens in S s, N tokens/s"),
    (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} UTC", "MOMENT"),
    (r"\b\d{4}\.\d+\.\d+\b", "VERSION"),
    (r"tokens: \d+ in, \d+ out", "tokens: N in, N out"),
)


def normal(text: str, *more: tuple[str, str]) -> str:
    for pattern, replacement in (*more, *VOLATILE):
        text = re.sub(pattern, replacement, text)
    # The width of a column follows from what was replaced in it.
    return re.sub(r" {3,}", "  ", text)


def transcript(result: "subprocess.CompletedProcess[str]", *more: tuple[str, str]) -> str:
    return "\n".join(
        [
            f"exit: {result.returncode}",
            "--- stdout",
            normal(result.stdout, *more),
            "--- stderr",
            normal(result.stderr, *more),
        ]
    )


@pytest.fixture
def text(client: Client) -> str:
    """What the model answers to the prompt: it may differ between two kinds of CPU."""
    return str(client.run(PROMPT, seed=7, max_tokens=24)["output"]["text"])


def test_submit(run: Run, live: LiveDaemon, text: str, snapshot: SnapshotAssertion) -> None:
    result = run("submit", PROMPT, "--seed", "7", "--max-tokens", "24", url=live.url)
    assert transcript(result, (re.escape(text), "TEXT")) == snapshot


def test_submit_json(run: Run, live: LiveDaemon, text: str) -> None:
    result = run("submit", PROMPT, "--seed", "7", "--max-tokens", "24", "--json", url=live.url)
    assert (result.returncode, result.stderr) == (0, "")
    events = [json.loads(line) for line in result.stdout.splitlines()]
    assert [set(event) for event in events] == [{"event", "id", "data"}] * len(events)
    names = [event["event"] for event in events if event["event"] != "metrics"]
    assert names == ["started", *["token"] * (len(names) - 2), "end"]
    assert "".join(event["data"]["t"] for event in events if event["event"] == "token") == text
    assert events[-1]["data"]["receipt"]["seed"] == 7


def test_task_and_verify(
    run: Run, live: LiveDaemon, text: str, tmp_path: Path, snapshot: SnapshotAssertion
) -> None:
    run("submit", PROMPT, "--seed", "7", "--max-tokens", "24", "--task-id", TASK, url=live.url)
    shown = run("task", TASK, url=live.url)
    assert transcript(shown, (re.escape(text), "TEXT"), (r"tiny-\d", "tiny-N")) == snapshot
    saved = tmp_path / "receipt.json"
    verified = run("verify", TASK, "--save", str(saved), url=live.url)
    assert transcript(verified) == snapshot
    assert run("verify", str(saved), url=live.url).returncode == 0
    receipt = json.loads(saved.read_text())
    receipt["seed"] = 8
    saved.write_text(json.dumps(receipt))
    forged = run("verify", str(saved), url=live.url)
    assert transcript(forged) == snapshot


def test_cancel_of_a_finished_task_leaves_it(run: Run, live: LiveDaemon, client: Client) -> None:
    task_id = client.run("Hi", max_tokens=2)["task_id"]
    result = run("cancel", task_id, url=live.url)
    assert (result.returncode, result.stdout) == (0, f"task `{task_id}`: finished\n")


def test_pools_and_replicas(run: Run, live: LiveDaemon, snapshot: SnapshotAssertion) -> None:
    assert transcript(run("pools", url=live.url)) == snapshot
    assert transcript(run("replicas", url=live.url)) == snapshot


@pytest.mark.parametrize(
    "words",
    [
        ["submit", "Hi", "--model", "nothing"],
        ["submit", "Hi", "--max-tokens", "100000"],
        ["submit", "Hi", "--seed", "-1"],
        ["submit", "Hi", "--deadline-ms", "0"],
        ["task", TASK.replace("0", "1")],
        ["task", "seven"],
        ["cancel", TASK.replace("0", "1")],
        ["verify", TASK.replace("0", "1")],
        ["verify", "missing.json"],
        ["nothing"],
    ],
    ids=" ".join,
)
def test_failures(words: list[str], run: Run, live: LiveDaemon, snapshot: SnapshotAssertion) -> None:
    result = run(*words, url=live.url)
    assert "Traceback" not in result.stderr
    assert transcript(result) == snapshot


def test_missing_argument_is_wrong_usage(run: Run) -> None:
    result = run("submit")
    assert result.returncode == 2
    assert "the following arguments are required: PROMPT" in result.stderr


def test_no_daemon(run: Run, snapshot: SnapshotAssertion) -> None:
    result = run("submit", "Hi", url="http://127.0.0.1:9")
    assert transcript(result) == snapshot


def test_config_check_of_a_bad_file(run: Run, tmp_path: Path, snapshot: SnapshotAssertion) -> None:
    (tmp_path / "bad.yaml").write_text("server: {prot: 1}\npools: [{id: a, engine: lama}]\n")
    assert transcript(run("config", "check", "bad.yaml")) == snapshot
    assert transcript(run("serve", "--config", "bad.yaml")) == snapshot


def test_doctor_of_a_running_daemon(run: Run, live: LiveDaemon) -> None:
    result = run("doctor", "--json", url=live.url)
    assert result.returncode == 0, result.stdout
    checks = {check["name"]: check["status"] for check in json.loads(result.stdout)["checks"]}
    assert set(checks.values()) == {"ok"}


def test_ctrl_c_cancels_the_task(slow: LiveDaemon) -> None:
    env = {**os.environ, "ORCHQUEUE_URL": slow.url}
    process = subprocess.Popen(
        command("submit", "Tell me everything.", "--max-tokens", "900", "--task-id", TASK),
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # A shell starts background jobs deaf to Ctrl-C, and these tests may run in one.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None
    assert process.stdout.read(1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert err.decode().endswith(f"canceled: task `{TASK}`\n")
    with slow.client() as client:
        assert client.task(TASK)["state"] == "canceled"
