"""`orchqueue haiku`: the gate that no mock passes, against any daemon."""

from __future__ import annotations

import argparse
import asyncio
from typing import TYPE_CHECKING

from orchqueue.cli.checks import show_checks
from orchqueue.cli.connection import connection_arguments, json_argument, open_async_client

if TYPE_CHECKING:
    from orchqueue.cli.terminal import Terminal
    from orchqueue.determinism.haiku import HaikuReport


def arguments(parser: argparse.ArgumentParser) -> None:
    connection_arguments(parser)
    json_argument(parser)


def run(args: argparse.Namespace, terminal: Terminal) -> int:
    report = asyncio.run(_run(args))
    show(report, terminal)
    return 0 if report.ok else 1


async def _run(args: argparse.Namespace) -> HaikuReport:
    from orchqueue.determinism.haiku import run_haiku
    from orchqueue.determinism.haiku_prompt import HaikuPrompt

    async with open_async_client(args) as client:
        return await run_haiku(client, HaikuPrompt.now())


def show(report: HaikuReport, terminal: Terminal) -> None:
    """The poem, the checks, and what they come to."""
    if terminal.json:
        terminal.document(report.to_dict())
        return
    terminal.note(f"prompt: {report.prompt.text}")
    for refused in report.poems[:-1]:
        terminal.note(f"tried again with another seed: seed {refused.seed}: {'; '.join(refused.faults)}")
    terminal.line(report.poem.text.strip())
    terminal.line()
    show_checks(report.checks, terminal)
    word = terminal.colored("accepted", "green") if report.ok else terminal.colored("NOT accepted", "red")
    terminal.line(f"haiku of task `{report.poem.task_id}`: {word}")
