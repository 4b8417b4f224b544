"""Finding commands, usage, and the border where failures become messages."""

import subprocess
import sys
import time

import pytest
from orchqueue.cli.failure import CommandFailed, explain
from orchqueue.cli.main import COMMANDS
from orchqueue.errors import DaemonUnreachable, StreamInterrupted, from_envelope

from .conftest import Cli


def test_help_lists_every_command_and_the_exit_codes(cli: Cli) -> None:
    outcome = cli.run("--help")
    assert outcome.code == 0
    assert all(f"  {name} " in outcome.out for name in COMMANDS)
    assert "130  interrupted" in outcome.out


def test_no_command_is_wrong_usage(cli: Cli) -> None:
    assert cli.run().code == 2


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(cli: Cli, name: str) -> None:
    outcome = cli.run(name, "--help")
    assert outcome.code == 0
    assert outcome.out.startswith(f"usage: orchqueue {name}")


def test_every_command_knows_json(cli: Cli) -> None:
    actions = {"key": ["list"], "receipt-key": ["list"], "config": ["show"]}
    for name in COMMANDS:
        assert "--json" in cli.run(name, *actions.get(name, []), "--help").out, name


def test_unknown_command_suggests_a_near_one(cli: Cli) -> None:
    outcome = cli.run("submitt")
    assert outcome.code == 2
    assert outcome.err == "error: unknown command: `submitt`\nhint: did you mean `submit`?\n"


def test_wrong_arguments_are_wrong_usage(cli: Cli) -> None:
    assert cli.run("submit", "Hi", "--seed", "x").code == 2


def test_version(cli: Cli) -> None:
    assert cli.run("--version").out == "orchqueue 0.1.0\n"


def test_help_is_quick_and_loads_no_command() -> None:
    code = (
        "import sys; from orchqueue.cli.main import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "names = ('httpx', 'asyncio', 'pydantic', 'yaml', 'orchqueue.cli.submit')\n"
        "heavy = [name for name in names if name in sys.modules]\n"
        "sys.exit(f'loaded: {heavy}' if heavy else 0)"
    )
    best = 9.9
    for _ in range(3):
        begun = time.perf_counter()
        result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        best = min(best, time.perf_counter() - begun)
        assert result.returncode == 0, result.stderr
    assert best < 0.15


def envelope(code: str, **fields: object) -> Exception:
    return from_envelope({"code": code, "message": "why", "retriable": False, **fields})


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (DaemonUnreachable("away"), 3),
        (StreamInterrupted("broke off"), 1),
        (envelope("INVALID_PARAMS"), 2),
        (envelope("ADMISSION_REJECT"), 4),
        (envelope("QUEUE_FULL_DROP_LRU"), 4),
        (envelope("QUOTA_EXCEEDED"), 4),
        (envelope("DEADLINE_UNMET"), 4),
        (envelope("NOT_FOUND"), 1),
        (envelope("WORKER_RESET"), 1),
        (CommandFailed("no", exit_code=2), 2),
        (FileNotFoundError(2, "No such file or directory", "x"), 1),
        (ValueError("bad"), 2),
        (RuntimeError("bug"), 1),
    ],
)
# req: ORCH-4071
def test_exit_code_of_a_failure(error: Exception, code: int) -> None:
    assert explain(error).exit_code == code


def test_retriable_failure_says_when_to_try_again() -> None:
    failure = explain(envelope("ADMISSION_REJECT", retriable=True, retry_after_ms=1500))
    assert failure.hint == "try again in 1.5 s"


def test_the_daemons_own_hint_comes_first() -> None:
    assert explain(envelope("INVALID_PARAMS", hint="did you mean `seed`?")).hint == "did you mean `seed`?"


def test_a_missing_key_is_explained() -> None:
    assert "--key" in (explain(envelope("UNAUTHENTICATED")).hint or "")


def test_an_unforeseen_error_is_owned_and_shows_no_traceback(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(path: str | None) -> None:
        raise RuntimeError("something odd")

    monkeypatch.delenv("ORCHQUEUE_TRACEBACK", raising=False)
    monkeypatch.setattr("orchqueue.cli.config.load_config", broken)
    outcome = cli.run("config", "check")
    assert outcome.code == 1
    assert "fault of orchqueue: RuntimeError: something odd" in outcome.err
    assert "Traceback" not in outcome.err


# req: ORCH-4071
def test_interrupt_is_130(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(path: str | None) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("orchqueue.cli.config.load_config", interrupted)
    assert cli.run("config", "check").code == 130


def test_a_reader_that_leaves_is_no_error_message() -> None:
    command = f"{sys.executable} -m orchqueue config show | head -n 1"
    result = subprocess.run(["sh", "-c", command], capture_output=True, text=True)
    assert result.stdout.startswith("KEY")
    assert result.stderr == ""
