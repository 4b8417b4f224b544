"""`orchqueue task`: what the daemon knows of a task."""

from __future__ import annotations

import argparse
import datetime
from typing import TYPE_CHECKING, Any

from orchqueue.cli.connection import connection_arguments, json_argument, open_client

if TYPE_CHECKING:
    from orchqueue.cli.terminal import Terminal


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("task_id", metavar="ID", help="id of the task")
    connection_arguments(parser)
    json_argument(parser)


def run(args: argparse.Namespace, terminal: Terminal) -> int:
    with open_client(args) as client:
        task = client.task(args.task_id)
    if terminal.json:
        terminal.document(task)
    else:
        _show(task, terminal)
    return 0


def _show(task: dict[str, Any], terminal: Terminal) -> None:
    for name in ("task_id", "state", "priority", "pool_id", "queue_position", "predicted_start_ms"):
        if task.get(name) is not None:
            terminal.line(f"{name}: {task[name]}")
    for name in ("created_ms", "ended_ms"):
        if isinstance(task.get(name), int):
            terminal.line(f"{name.removesuffix('_ms')}: {_moment(task[name])}")
    for attempt in task.get("attempts", []):
        terminal.line(
            f"attempt {attempt.get('attempt')}: {attempt.get('replica_id')}, {attempt.get('outcome')}"
        )
    error = task.get("error")
    if isinstance(error, dict):
        terminal.line(f"error: {error.get('code')}: {error.get('message')}")
    output = task.get("output")
    if isinstance(output, dict):
        usage = output.get("usage", {})
        terminal.line(f"finish: {output.get('finish_reason')}")
        terminal.line(f"tokens: {usage.get('tokens_in')} in, {usage.get('tokens_out')} out")
        terminal.line("output:")
        terminal.write(str(output.get("text", "")))
        terminal.end_line()


def _moment(ms: int) -> str:
    return (
        datetime.datetime.fromtimestamp(ms / 1000, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
        + " UTC"
    )
