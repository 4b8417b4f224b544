"""`orchqueue determinism` and `orchqueue verify --replay`, against real replicas and against liars."""

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from orchqueue import Client
from orchqueue.testing import LiveDaemon, Reply, engine

Run = Callable[..., "subprocess.CompletedProcess[str]"]
REQUEST = {"prompt": "Once more the river", "max_tokens": 24, "temperature": 0.9, "ignore_eos": True}
DECLARED = {
    "engine_version": "b4000",
    "model_digest": "sha256:" + "ab" * 32,
    "device_class": "cpu:x86_64:avx2",
    "flash_attn": False,
    "n_batch": 2048,
    "n_ubatch": 512,
}


@contextmanager
def attached(*texts: str, **declared: Any) -> Iterator[str]:
    """A daemon with a replica for each text, all of them declared to be one set."""
    with ExitStack() as stack:
        engines = [stack.enter_context(engine([Reply(text)])) for text in texts]
        known = {name: value for name, value in {**DECLARED, **declared}.items() if value is not None}
        replicas = [{"url": one.url, "slots": 1, "declared": known} for one in engines]
        pool = {"id": "twins", "engine": "llamacpp", "ctx": 512, "replicas": replicas}
        yield stack.enter_context(LiveDaemon({"pools": [pool]})).url


# req: ORCH-4011
def test_real_replicas_of_one_set_agree(live: LiveDaemon, run: Run) -> None:
    said = run("determinism", "--prompts", "4", "--tokens", "24", "--json", url=live.url)
    assert said.returncode == 0, said.stdout + said.stderr
    (found,) = json.loads(said.stdout)["sets"]
    assert found["cases"] == 12
    assert sorted(found["decodes"]) == ["tiny-0", "tiny-1"]
    assert found["tokens_out"] >= 2 * 12 * 24
    assert found["divergences"] == []


# req: ORCH-4011
def test_replicas_that_differ_are_shown_with_the_offset_and_a_picture(run: Run, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    with attached("All is well here", "All is ill <here>") as url:
        words = ("determinism", "run", "--prompts", "2", "--temperatures", "0", "--html", str(page))
        said = run(*words, url=url)
        document = json.loads(run(*words, "--json", url=url).stdout)
    assert said.returncode == 1
    assert "diverged: their bytes differ from offset 7" in said.stdout
    assert said.stdout.endswith("determinism: FAILED\n")
    first = document["sets"][0]["divergences"][0]
    assert first["byte_offset"] == 7
    assert first["flags"]["flash_attn"] is False
    assert {first["left"]["text"], first["right"]["text"]} == {"All is well here", "All is ill <here>"}
    assert len(first["left"]["pieces"]) == 4
    drawn = page.read_text()
    assert 'class="t d first"' in drawn
    assert "&lt;here&gt;" in drawn
    assert "http" not in drawn


def test_a_set_that_promises_nothing_is_not_asked(run: Run) -> None:
    with attached("Hello", device_class=None, flash_attn=None) as url:
        said = run("determinism", url=url)
        status = run("determinism", "status", url=url)
    assert said.returncode == 1
    assert "hint: `orchqueue determinism status` tells why" in said.stderr
    assert "`flash_attn` is not known; declare it" in status.stdout


def test_status_shows_what_is_promised_and_how_it_was_kept(live: LiveDaemon, run: Run) -> None:
    (shown,) = json.loads(run("determinism", "status", "--json", url=live.url).stdout)["replicasets"]
    assert shown["reproducible"] is True
    assert shown["not_reproducible_because"] == {}
    assert sorted(shown["replicas"]) == ["tiny-0", "tiny-1"]
    assert shown["divergences_total"] == 0
    assert shown["identity_fields"]["flags"]["n_parallel"] == 1
    assert {"failovers_total", "tokens_redecoded_total"} <= set(shown)
    table = run("determinism", "status", url=live.url).stdout.splitlines()
    assert table[0].split()[:4] == ["POOL", "SET", "REPLICAS", "REPRODUCIBLE"]
    assert shown["identity"][:12] in table[1]


@pytest.mark.parametrize("words", [["--prompts", "0"], ["--temperatures", "warm"], ["--temperatures", ""]])
def test_a_plan_that_asks_nothing_is_wrong_usage(run: Run, words: list[str]) -> None:
    assert run("determinism", *words, "--url", "http://127.0.0.1:9").returncode == 2


def test_an_unknown_pool_and_no_daemon_say_so(live: LiveDaemon, run: Run) -> None:
    assert "pool `other`" in run("determinism", "--pool", "other", url=live.url).stderr
    assert run("determinism", "--url", "http://127.0.0.1:9").returncode == 3


@pytest.fixture
def proven(client: Client, tmp_path: Path) -> tuple[Path, Path]:
    """A receipt and the request that it is about, as files."""
    task = client.run(**REQUEST)
    receipt, request = tmp_path / "receipt.json", tmp_path / "request.json"
    receipt.write_text(json.dumps(client.receipt(task["task_id"])))
    request.write_text(json.dumps(REQUEST))
    return receipt, request


# req: ORCH-4081
def test_a_receipt_is_replayed_by_whoever_has_the_request(
    live: LiveDaemon, run: Run, proven: tuple[Path, Path]
) -> None:
    receipt, request = proven
    said = run("verify", str(receipt), "--request", str(request), "--replay", "--json", url=live.url)
    assert said.returncode == 0, said.stdout + said.stderr
    found = {check["name"]: check["outcome"] for check in json.loads(said.stdout)["checks"]}
    assert found["request"] == found["replay identity"] == found["replay output"] == "ok"


# req: ORCH-4081
def test_the_digest_of_another_output_does_not_survive_a_replay(
    live: LiveDaemon, run: Run, proven: tuple[Path, Path]
) -> None:
    receipt, request = proven
    forged = json.loads(receipt.read_text())
    forged["output_digest"] = "00" * 32
    receipt.write_text(json.dumps(forged))
    said = run("verify", str(receipt), "--request", str(request), "--replay", url=live.url)
    assert said.returncode == 1
    assert "failed  replay output: digest" in said.stdout
    assert "NOT verified" in said.stdout


def test_a_request_that_is_not_the_receipts_is_not_decoded(
    live: LiveDaemon, run: Run, proven: tuple[Path, Path]
) -> None:
    receipt, request = proven
    request.write_text(json.dumps({**REQUEST, "temperature": 0.8}))
    said = run("verify", str(receipt), "--request", str(request), "--replay", url=live.url)
    assert said.returncode == 1
    assert "this is not the request of the receipt" in said.stderr


def test_a_daemon_without_the_set_of_the_receipt_says_which_it_has(
    live: LiveDaemon, run: Run, proven: tuple[Path, Path]
) -> None:
    receipt, request = proven
    moved = json.loads(receipt.read_text())
    moved["identity"] = "11" * 32
    receipt.write_text(json.dumps(moved))
    said = run("verify", str(receipt), "--request", str(request), "--replay", url=live.url)
    assert said.returncode == 1
    assert "this daemon has no replica set `1111" in said.stderr
    assert "hint: replay where the same engine, build, model and flags run" in said.stderr


def test_a_replay_without_the_request_is_wrong_usage(run: Run, proven: tuple[Path, Path]) -> None:
    said = run("verify", str(proven[0]), "--replay", "--url", "http://127.0.0.1:9")
    assert said.returncode == 2
    assert "give the body that was submitted with `--request FILE`" in said.stderr
    missing = run("verify", str(proven[0]), "--request", "nowhere.json", "--url", "http://127.0.0.1:9")
    assert missing.returncode == 2
