"""`orchqueue cancel`: ends a task, whatever state it is in."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from orchqueue.cli.connection import connection_arguments, json_argument, open_client

if TYPE_CHECKING:
    from orchqueue.cli.terminal import Terminal


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("task_id", metavar="ID", help="id of the task")
    connection_arguments(parser)
    json_argument(parser)


def run(args: argparse.Namespace, terminal: Terminal) -> int:
    with open_client(args) as client:
        client.cancel(args.task_id)
        state = client.task(args.task_id).get("state")
    if terminal.json:
        terminal.document({"task_id": args.task_id, "state": state})
    else:
        terminal.line(f"task `{args.task_id}`: {state}")
    return 0
