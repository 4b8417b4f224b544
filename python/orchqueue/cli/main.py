"""Finds the command, runs it, and turns whatever goes wrong into a message, a hint and an exit code.

Only the module of the command that is asked for is loaded: `orchqueue --help` loads none.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, cast

from orchqueue import __version__

if TYPE_CHECKING:
    from orchqueue.cli.terminal import Terminal


class CommandModule(Protocol):
    """What a module of this package offers."""

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        """Adds the command's own arguments."""

    def run(self, args: argparse.Namespace, terminal: Terminal) -> int:
        """Does it and returns the exit code."""


@dataclass(frozen=True, slots=True)
class Command:
    module: str
    summary: str


COMMANDS: Mapping[str, Command] = {
    "serve": Command("serve", "run the daemon"),
    "demo": Command("demo", "start a daemon, stream a haiku from a real model, verify its receipt"),
    "submit": Command("submit", "submit a prompt and stream the answer"),
    "task": Command("task", "show a task"),
    "cancel": Command("cancel", "cancel a task"),
    "verify": Command("verify", "check the receipt of a task"),
    "determinism": Command("determinism", "check that replicas of one set give the same bytes"),
    "haiku": Command("haiku", "let a real model write a poem and check every claim about it"),
    "pools": Command("pools", "list the pools and their health"),
    "replicas": Command("replicas", "list the replicas and their slots"),
    "key": Command("key", "create, list and revoke API keys"),
    "receipt-key": Command("receipt_key", "list, rotate and export the keys that sign receipts"),
    "doctor": Command("doctor", "check that everything is there to run a daemon"),
    "config": Command("config", "check a configuration, show it, print its schema"),
}

EXIT_CODES = """\
exit codes:
  0    done
  1    the thing asked for failed
  2    wrong usage
  3    the daemon is not reachable
  4    refused: quota, full queue, deadline
  130  interrupted
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code. Nothing but `SystemExit` of wrong usage leaves it."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0].startswith("-"):
        return _without_command(words)
    command = COMMANDS.get(words[0])
    if command is None:
        return _unknown(words[0])
    module = cast(CommandModule, importlib.import_module(f"orchqueue.cli.{command.module}"))
    parser = argparse.ArgumentParser(
        prog=f"orchqueue {words[0]}", description=f"{command.summary.capitalize()}."
    )
    module.arguments(parser)
    return _guarded(module, parser.parse_args(words[1:]))


def _without_command(words: list[str]) -> int:
    commands = "\n".join(f"  {name:<12} {command.summary}" for name, command in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="orchqueue",
        usage="orchqueue [-h] [--version] COMMAND ...",
        description="A fair queue for LLM tasks: deterministic streams and receipts that can be verified.",
        epilog=f"commands:\n{commands}\n\n{EXIT_CODES}\n`orchqueue COMMAND --help` shows its arguments.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"orchqueue {__version__}")
    parser.parse_args(words)
    parser.print_help()
    return 2


def _unknown(word: str) -> int:
    import difflib

    near = difflib.get_close_matches(word, COMMANDS, n=1)
    hint = f"did you mean `{near[0]}`?" if near else "`orchqueue --help` lists the commands"
    sys.stderr.write(f"error: unknown command: `{word}`\nhint: {hint}\n")
    return 2


def _guarded(module: CommandModule, args: argparse.Namespace) -> int:
    """The border: failures become messages here and nowhere else."""
    from orchqueue.cli.terminal import Terminal

    terminal = Terminal(sys.stdout, sys.stderr, json=getattr(args, "json", False))
    try:
        return module.run(args, terminal)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read our output has left, as `head` does. Python would complain when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        from orchqueue.cli.failure import explain

        failure = explain(error)
        terminal.fail(failure)
        return failure.exit_code
    finally:
        terminal.clear_progress()
