"""`orchqueue verify`: checks a receipt, from a file or of a task that the daemon still has.

With `--request` the request digest is checked too, and `--replay` decodes the task once more. The daemon does
not tell what a task was asked, so the body that was submitted must come from whoever submitted it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import uuid
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchqueue.cli.checks import show_checks
from orchqueue.cli.connection import connection_arguments, json_argument, open_async_client, open_client
from orchqueue.cli.failure import USAGE, CommandFailed

if TYPE_CHECKING:
    from orchqueue.cli.terminal import Terminal
    from orchqueue.determinism.replay import Replayed
    from orchqueue.determinism.verify import Verification


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "receipt",
        metavar="FILE|TASK_ID",
        help="a receipt (`-`: standard input), or the id of a finished task",
    )
    parser.add_argument("--keys", metavar="FILE", help="public keys; by default the daemon is asked for them")
    parser.add_argument("--save", metavar="FILE", help="write the signed receipt of a task to this file")
    parser.add_argument(
        "--request",
        metavar="FILE",
        help="the body of `POST /v1/tasks` as it was submitted (`-`: standard input)",
    )
    parser.add_argument(
        "--replay", action="store_true", help="decode it again on the same replica set; needs `--request`"
    )
    connection_arguments(parser)
    json_argument(parser)


def run(args: argparse.Namespace, terminal: Terminal) -> int:
    from orchqueue.determinism.verify import Evidence, parse_keys, verify

    request = _request(args)
    task_id = None if args.receipt == "-" else _task_id(args.receipt)
    if task_id is None:
        receipt, evidence = _from_file(args.receipt), Evidence(task=request)
    else:
        with open_client(args) as client:
            receipt = client.receipt(task_id)
            evidence = Evidence(task=request, output=client.task(task_id).get("output"))
    if args.save:
        Path(args.save).write_text(json.dumps(receipt, indent=2) + "\n")
    verification = verify(receipt, parse_keys(_keys(args)), evidence)
    if args.replay and request is not None:
        replayed = asyncio.run(_replay(args, receipt, request))
        verification = replace(verification, checks=verification.checks + replayed.checks)
    show(verification, terminal)
    return 0 if verification.ok else 1


async def _replay(args: argparse.Namespace, receipt: dict[str, Any], request: dict[str, Any]) -> Replayed:
    from orchqueue.determinism.replay import replay

    async with open_async_client(args) as client:
        return await replay(client, receipt, request)


def show(verification: Verification, terminal: Terminal) -> None:
    """The checks, one a line, and what they come to."""
    if terminal.json:
        terminal.document(verification.to_dict())
        return
    show_checks(verification.checks, terminal)
    word = "verified" if verification.ok else "NOT verified"
    terminal.line(f"receipt of task `{verification.task_id}`: {word}")


def _request(args: argparse.Namespace) -> dict[str, Any] | None:
    if args.request:
        if args.request != "-" and not Path(args.request).exists():
            hint = "write the body of `POST /v1/tasks` to a file and name it"
            raise CommandFailed(f"`--request`: no such file: `{args.request}`", hint, exit_code=USAGE)
        return _read(args.request, "a request")
    if args.replay:
        raise CommandFailed(
            "`--replay` needs the request: a receipt has only its digest",
            "give the body that was submitted with `--request FILE`",
            exit_code=USAGE,
        )
    return None


def _task_id(text: str) -> str | None:
    """`text` as a task's id; None where it names a file."""
    if Path(text).exists():
        return None
    try:
        return str(uuid.UUID(text))
    except ValueError:
        return None


def _from_file(name: str) -> dict[str, Any]:
    receipt = _read(name, "a receipt")
    # An `end` event, or a task as the daemon prints it, carries its receipt inside.
    inner = receipt.get("receipt")
    return inner if isinstance(inner, dict) else receipt


def _keys(args: argparse.Namespace) -> dict[str, Any]:
    if args.keys:
        return _read(args.keys, "a document of keys")
    with open_client(args) as client:
        return client.receipt_keys()


def _read(name: str, what: str) -> dict[str, Any]:
    try:
        data = json.loads(sys.stdin.read() if name == "-" else Path(name).read_text())
    except FileNotFoundError:
        raise CommandFailed(
            f"`{name}` is neither a file nor the id of a task",
            "give the file of a receipt, or the id that `orchqueue submit` printed",
            exit_code=USAGE,
        ) from None
    except ValueError:
        raise CommandFailed(f"`{name}` is not {what}: it is not JSON") from None
    if not isinstance(data, dict):
        raise CommandFailed(f"`{name}` is not {what}: it is not a JSON object")
    return data
