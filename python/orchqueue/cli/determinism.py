"""`orchqueue determinism`: asks a live daemon the same things twice, or shows what it promises."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from orchqueue.cli.connection import connection_arguments, json_argument, open_async_client
from orchqueue.cli.failure import USAGE, CommandFailed

if TYPE_CHECKING:
    from orchqueue.cli.terminal import Terminal
    from orchqueue.determinism.cases import Plan
    from orchqueue.determinism.status import SetStatus
    from orchqueue.determinism.suite import SetReport, SuiteReport

#: Differences that are told one by one; the page and the JSON have them all.
_TOLD = 5


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "action", nargs="?", choices=("run", "status"), default="run", help="`run` is the default"
    )
    connection_arguments(parser)
    parser.add_argument("--pool", metavar="P", help="only this pool")
    parser.add_argument("--prompts", metavar="N", type=int, default=16, help="different prompts: %(default)s")
    parser.add_argument("--tokens", metavar="N", type=int, default=64, help="tokens of each: %(default)s")
    parser.add_argument(
        "--temperatures", metavar="T,T", default="0,0.7,1.2", help="each prompt at each: %(default)s"
    )
    parser.add_argument("--seed", metavar="N", type=int, default=1, help="decides the prompts: %(default)s")
    parser.add_argument("--html", metavar="FILE", help="write the report with a picture of each difference")
    json_argument(parser)


def run(args: argparse.Namespace, terminal: Terminal) -> int:
    if args.action == "status":
        return _show_status(asyncio.run(_status(args)), terminal)
    plan = _plan(args)
    report = asyncio.run(_suite(args, plan, terminal))
    if args.html:
        from orchqueue.determinism.picture import page

        Path(args.html).write_text(page(report), encoding="utf-8")
    show(report, terminal)
    return 0 if report.ok else 1


def _plan(args: argparse.Namespace) -> Plan:
    from orchqueue.determinism.cases import Plan

    try:
        temperatures = tuple(float(text) for text in args.temperatures.split(",") if text.strip())
        return Plan(args.prompts, args.tokens, temperatures, args.seed)
    except ValueError as error:
        raise CommandFailed(f"`--temperatures`, `--prompts`, `--tokens`: {error}", exit_code=USAGE) from None


async def _suite(args: argparse.Namespace, plan: Plan, terminal: Terminal) -> SuiteReport:
    from orchqueue.determinism.suite import run_suite

    # Without a terminal a line per case would only fill a log.
    progress = terminal.progress if terminal.err_is_terminal else lambda _: None
    async with open_async_client(args) as client:
        return await run_suite(client, plan, args.pool, progress)


async def _status(args: argparse.Namespace) -> list[SetStatus]:
    from orchqueue.determinism.status import read_status

    async with open_async_client(args) as client:
        return await read_status(client, args.pool)


def show(report: SuiteReport, terminal: Terminal) -> None:
    """The figures, the first differences, and what it comes to."""
    if terminal.json:
        terminal.document(report.to_dict())
        return
    terminal.table(
        ["POOL", "SET", "REPLICAS", "CASES", "DECODES", "TOKENS", "SECONDS", "DIVERGED", "UNFINISHED"],
        [_row(one) for one in report.sets],
    )
    for one in report.sets:
        _show_troubles(one, terminal)
    word = terminal.colored("no difference", "green") if report.ok else terminal.colored("FAILED", "red")
    terminal.line(f"determinism: {word}")


def _row(report: SetReport) -> list[object]:
    return [
        report.target.pool_id,
        report.target.identity[:12],
        len(report.decodes),
        report.cases,
        report.decodes.total(),
        report.tokens_out,
        f"{report.seconds:.1f}",
        len(report.divergences),
        len(report.unfinished),
    ]


def _show_troubles(report: SetReport, terminal: Terminal) -> None:
    for one in report.divergences[:_TOLD]:
        sides = f"{one.left.replica_id} and {one.right.replica_id}"
        terminal.line(f"diverged: {one.reason}: {sides}, seed {one.case.seed}, prompt: {one.case.prompt}")
    for case, error in report.unfinished[:_TOLD]:
        terminal.line(f"not finished: {error}, prompt: {case.prompt}")
    if report.one_sided:
        terminal.line(f"served by one replica only: {report.one_sided} cases; other tasks were in the way")
    if len(report.target.replicas) == 1:
        terminal.line(f"pool `{report.target.pool_id}` has one replica: it was compared with itself")


def _show_status(sets: list[SetStatus], terminal: Terminal) -> int:
    if terminal.json:
        terminal.document({"replicasets": [one.to_dict() for one in sets]})
        return 0
    header = ["POOL", "SET", "REPLICAS", "REPRODUCIBLE", "DIVERGENCES", "FAILOVERS", "REDECODED TOKENS"]
    terminal.table(
        header,
        [
            [
                one.pool_id,
                one.identity[:12],
                ", ".join(sorted(one.replicas)) or None,
                one.reproducible,
                *one.counters.values(),
            ]
            for one in sets
        ],
    )
    for one in sets:
        for name, reason in one.reasons.items():
            terminal.line(f"{name} is not reproducible: {reason}")
    return 0
