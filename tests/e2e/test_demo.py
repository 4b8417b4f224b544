"""`orchqueue demo`, as a newcomer runs it."""

import json
import os
import signal
import time

from .conftest import Run


# req: ORCH-4080
def test_demo_streams_a_haiku_and_verifies_it_in_15_seconds(run: Run) -> None:
    begun = time.monotonic()
    result = run("demo")
    seconds = time.monotonic() - begun
    assert result.returncode == 0, result.stderr
    assert "receipt: verified" in result.stdout
    assert "tokens/s, by replica: tiny-0" in result.stdout
    assert "orchqueue serve" in result.stdout
    assert "Write a haiku" in result.stderr
    assert seconds < 15


def test_demo_json_holds_the_poem_and_its_receipt(run: Run) -> None:
    result = run("demo", "--json")
    assert result.returncode == 0, result.stderr
    document = json.loads(result.stdout)
    assert document["ok"] is True
    assert document["faults"] == []
    assert len([line for line in document["text"].splitlines() if line.strip()]) >= 3
    assert document["tokens_out"] > 0
    assert document["receipt"]["signature"]
    assert {check["name"]: check["outcome"] for check in document["verification"]["checks"]} == {
        "signature": "ok",
        "identity": "ok",
        "request": "skipped",
        "output": "ok",
    }


def test_demo_keep_leaves_a_daemon_that_answers(run: Run) -> None:
    result = run("demo", "--keep", "--json")
    assert result.returncode == 0, result.stderr
    document = json.loads(result.stdout)
    try:
        assert run("pools", url=document["url"]).returncode == 0
    finally:
        os.kill(document["pid"], signal.SIGTERM)
