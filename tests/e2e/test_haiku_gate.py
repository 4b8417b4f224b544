"""The haiku gate: a real model passes it, and nothing else does. Every rule has a control that must fail."""

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from orchqueue.testing import LiveDaemon, Reply, ScriptedEngine, daemon, engine

sys.path.insert(0, str(Path(__file__).parents[2] / "test-harness" / "haiku"))

from haiku_gate import __main__ as command
from haiku_gate.gate import Verdict, judge

ROOT = Path(__file__).parents[2]
EMPTY_TREE_FILE = "README.md"
DIGEST = "sha256:" + "ab" * 32
DECLARED = {
    "engine_version": "b4000",
    "model_digest": DIGEST,
    "device_class": "cpu:x86_64:avx2",
    "flash_attn": False,
    "n_batch": 2048,
    "n_ubatch": 512,
}


def failed(verdict: Verdict) -> dict[str, str]:
    return {check.name: check.reason for check in verdict.report.checks if check.outcome != "ok"}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / EMPTY_TREE_FILE).write_text("A tree with one file.\n")
    return tmp_path


@contextmanager
def fronting(scripted: ScriptedEngine) -> Iterator[str]:
    """A daemon whose one replica is a script that declares to be a model."""
    replica = {"url": scripted.url, "slots": 1, "declared": DECLARED}
    pool = {"id": "fake", "engine": "llamacpp", "determinism": "strict", "ctx": 512, "replicas": [replica]}
    with LiveDaemon({"pools": [pool]}) as running:
        yield running.url


def echo(poem: str) -> Callable[[Mapping[str, Any]], Reply]:
    """A script that reads the minute and the nonce from the prompt, as a mock would."""

    def answer(request: Mapping[str, Any]) -> Reply:
        said = re.findall(r'\\?"([a-z0-9-]+)\\?"\.', json.dumps(request.get("messages", "")))
        minute, nonce = said if len(said) == 2 else ("no", "prompt")
        return Reply(poem.format(minute=minute, nonce=nonce))

    return answer


# req: ORCH-4080
def test_a_real_model_is_accepted_by_the_release_gate(live: LiveDaemon) -> None:
    verdict = judge(live.url, ROOT)
    assert failed(verdict) == {}
    assert verdict.findings == ()
    assert verdict.ok
    assert verdict.files > 100


# req: ORCH-4080
def test_the_command_prints_the_poem_and_the_checks(
    live: LiveDaemon, run: Callable[..., "subprocess.CompletedProcess[str]"]
) -> None:
    said = run("haiku", url=live.url)
    assert said.returncode == 0, said.stdout + said.stderr
    assert [line.split(":")[0] for line in said.stdout.splitlines() if line.startswith("ok ")] == [
        f"ok      {name}" for name in ("poem", "time", "metrics", "replica", "receipt", "real engine")
    ]
    document = json.loads(run("haiku", "--json", url=live.url).stdout)
    assert document["ok"] is True
    assert document["nonce"] in document["poems"][-1]["text"]


def test_without_a_daemon_the_command_says_so(
    run: Callable[..., "subprocess.CompletedProcess[str]"],
) -> None:
    assert run("haiku", "--url", "http://127.0.0.1:9").returncode == 3


# req: ORCH-4080
def test_a_scripted_engine_that_echoes_the_prompt_is_refused(tree: Path) -> None:
    with engine(echo("{minute} on the hill\n{nonce} in the snow\nall is still")) as scripted:
        with fronting(scripted) as url:
            verdict = judge(url, tree)
    assert list(failed(verdict)) == ["real engine"]
    assert "7 tokens were asked for" in failed(verdict)["real engine"]
    assert "the seed changes nothing" in failed(verdict)["real engine"]
    assert not verdict.ok


# req: ORCH-4080
def test_an_answer_without_the_nonce_is_tried_once_more_and_refused(tree: Path) -> None:
    with engine(echo("{minute} on the hill\nnothing in the snow\nall is still")) as scripted:
        with fronting(scripted) as url:
            verdict = judge(url, tree)
    assert failed(verdict)["poem"] == "the nonce is missing"
    assert len(verdict.report.poems) == 2
    assert verdict.report.to_dict()["retried"] is True
    assert len({poem.seed for poem in verdict.report.poems}) == 2


# req: ORCH-4080
def test_without_metrics_the_gate_is_shut(tree: Path) -> None:
    with daemon(echo("{minute} on the hill\n{nonce} in the snow\nall is still")) as running:
        verdict = judge(running.url, tree)
    assert failed(verdict)["metrics"].startswith("`/metrics` is absent")
    assert failed(verdict)["replica"] == "the daemon does not show the replica"


# req: ORCH-4080
@pytest.mark.parametrize("ignored", [False, True])
def test_a_stored_haiku_shuts_the_gate(live: LiveDaemon, tree: Path, ignored: bool) -> None:
    planted = tree / "tests" / "fixtures" / "haiku_1.txt"
    planted.parent.mkdir(parents=True)
    planted.write_text("an old pond\n")
    if ignored:
        subprocess.run(["git", "init", "--quiet", str(tree)], check=True)
        (tree / ".gitignore").write_text("fixtures/\n")
    verdict = judge(live.url, tree)
    assert [(one.path, one.reason) for one in verdict.findings] == [
        ("tests/fixtures/haiku_1.txt", "a stored haiku")
    ]
    assert verdict.report.ok
    assert not verdict.ok


# req: ORCH-4080
def test_what_the_tree_knows_of_this_run_shuts_the_gate(live: LiveDaemon, tree: Path) -> None:
    from haiku_gate.scan import scan

    report = judge(live.url, tree).report
    assert scan(tree, report) == []
    longest = max(report.poem.text.splitlines(), key=len)
    (tree / "source.py").write_text(
        f'ANSWERS = {{"{report.prompt.minute_words}": "{report.prompt.nonce}"}}\n\n# {longest.upper()}\n'
    )
    found = [(one.path, one.line, one.reason) for one in scan(tree, report)]
    assert found[0] == ("source.py", 1, "the minute and the nonce of this run")
    assert found[1][:2] == ("source.py", 3)


def test_an_empty_tree_proves_nothing(live: LiveDaemon, tmp_path: Path) -> None:
    verdict = judge(live.url, tmp_path)
    assert verdict.report.ok
    assert not verdict.ok


# req: ORCH-4080
@pytest.mark.parametrize(("required", "code"), [("0", 0), ("1", 1)])
def test_a_missing_engine_is_a_skip_unless_one_is_required(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], required: str, code: int
) -> None:
    monkeypatch.setenv("REQUIRE_REAL_LLAMA", required)
    monkeypatch.setattr(command.embedded, "engine_version", lambda: None)
    assert command.main([]) == code
    assert ("REFUSED" if code else "skipped") in capsys.readouterr().err


def test_the_gate_as_a_script_exits_by_its_verdict(
    live: LiveDaemon, tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["--url", live.url, "--root", str(tree), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["files_scanned"] == 1
    (tree / "fixtures").mkdir()
    (tree / "fixtures" / "haiku.txt").write_text("")
    assert command.main(["--url", live.url, "--root", str(tree)]) == 1
    assert "failed  source: fixtures/haiku.txt" in capsys.readouterr().out
