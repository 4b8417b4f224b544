"""`orchqueue submit`: one prompt in, its stream out. Ctrl-C cancels the task."""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from orchqueue.cli.connection import connection_arguments, json_argument, open_client

if TYPE_CHECKING:
    from orchqueue.cli.failure import Failure
    from orchqueue.cli.terminal import Terminal
    from orchqueue.client_sync import TaskStream
    from orchqueue.events import Event

INTERRUPTED = 130


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("prompt", metavar="PROMPT", help="the prompt; `-` reads it from standard input")
    connection_arguments(parser)
    parser.add_argument("--priority", metavar="C", help="class of the task, such as interactive or batch")
    parser.add_argument("--seed", metavar="N", type=int, help="the same seed gives the same text")
    parser.add_argument("--max-tokens", metavar="N", type=int, help="longest answer")
    parser.add_argument("--temperature", metavar="T", type=float)
    parser.add_argument("--deadline-ms", metavar="N", type=int, help="refuse rather than answer later")
    parser.add_argument("--engine", metavar="E", help="only replicas of this engine")
    parser.add_argument("--model", metavar="M", help="catalog name, sha256:… or repo:owner/name")
    parser.add_argument("--task-id", metavar="ID", help="id of the task; the same id is the same task")
    json_argument(parser, "one JSON object a line: {event, id, data}")


def run(args: argparse.Namespace, terminal: Terminal) -> int:
    prompt = sys.stdin.read() if args.prompt == "-" else args.prompt
    with open_client(args) as client:
        stream = client.stream(prompt, **_fields(args))
        show = _JsonView(terminal) if terminal.json else _TextView(terminal)
        try:
            return _shown(stream, show)
        except KeyboardInterrupt:
            _cancel(stream)
            terminal.end_line()
            terminal.note(f"canceled: task `{stream.task_id}`")
            return INTERRUPTED


def _fields(args: argparse.Namespace) -> dict[str, Any]:
    return {
        "priority": args.priority,
        "seed": args.seed,
        "max_tokens": args.max_tokens,
        "temperature": args.temperature,
        "deadline_ms": args.deadline_ms,
        "engine": args.engine,
        "model_ref": args.model,
        "task_id": args.task_id,
    }


def _shown(stream: TaskStream, show: _JsonView | _TextView) -> int:
    from orchqueue.cli.failure import explain
    from orchqueue.errors import OrchqueueError

    begun = time.monotonic()
    try:
        for event in stream:
            show.event(event)
    except OrchqueueError as error:
        failure = explain(error)
        show.failed(stream, error, failure)
        return failure.exit_code
    show.done(stream, time.monotonic() - begun)
    return 0


def _cancel(stream: TaskStream) -> None:
    from orchqueue.errors import OrchqueueError

    try:
        stream.cancel()
    except OrchqueueError:
        # It has not arrived, or the daemon is gone: then there is nothing to cancel.
        return


class _TextView:
    """The text to standard output, a summary to standard error."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal

    def event(self, event: Event) -> None:
        from orchqueue.events import Started, Token

        if isinstance(event, Started):
            if event.queue_position:
                self._terminal.progress(f"queued, position: {event.queue_position}")
        elif isinstance(event, Token):
            if event.channel == "text":
                self._terminal.write(event.text)

    def failed(self, stream: TaskStream, error: Exception, failure: Failure) -> None:
        self._terminal.fail(failure)

    def done(self, stream: TaskStream, seconds: float) -> None:
        from orchqueue.events import End

        self._terminal.end_line()
        end = stream.terminal
        if isinstance(end, End):
            self._terminal.note(summary(end, stream.task_id, seconds))


class _JsonView:
    """Every event as it came, one object a line."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal

    def event(self, event: Event) -> None:
        from orchqueue.events import UnknownEvent

        name = event.name if isinstance(event, UnknownEvent) else event.NAME
        self._terminal.document({"event": name, "id": event.id, "data": event.data})

    def failed(self, stream: TaskStream, error: Exception, failure: Failure) -> None:
        from orchqueue.errors import ServerError
        from orchqueue.events import Error

        end = stream.terminal
        if isinstance(end, Error):
            self.event(end)
        elif isinstance(error, ServerError):
            data = {name: value for name, value in asdict(error.envelope).items() if value is not None}
            self._terminal.document({"event": "error", "id": None, "data": data})
        else:
            self._terminal.fail(failure)

    def done(self, stream: TaskStream, seconds: float) -> None:
        """The stream has said it all."""


def summary(end: Any, task_id: str, seconds: float) -> str:
    """One line about a finished task."""
    tokens = end.tokens_out or 0
    # Decoding alone tells the speed; waiting and travelling are in the seconds.
    decode_s = end.decode_ms / 1000 if end.decode_ms else seconds
    speed = f", {tokens / decode_s:.0f} tokens/s" if decode_s > 0 else ""
    receipt = end.receipt or {}
    digest = str(receipt.get("output_digest", ""))[:16]
    parts = [f"{tokens} tokens in {seconds:.2f} s{speed}", f"finish: {end.finish_reason}"]
    if digest:
        parts.append(f"digest: {digest}")
    return " · ".join([*parts, f"task: {task_id}"])
