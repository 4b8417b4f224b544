"""`orchqueue serve`: runs the daemon in the foreground until it is told to stop."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from orchqueue.cli.config import config_argument, refused
from orchqueue.cli.connection import json_argument

if TYPE_CHECKING:
    from orchqueue.cli.terminal import Terminal


def arguments(parser: argparse.ArgumentParser) -> None:
    config_argument(parser)
    parser.add_argument("--host", metavar="H", help="address to listen on (`server.host`)")
    parser.add_argument("--port", metavar="P", help="port to listen on, 0 takes a free one (`server.port`)")
    json_argument(parser, "print the address as JSON once it listens")


def run(args: argparse.Namespace, terminal: Terminal) -> int:
    from orchqueue.config import ConfigError, load

    try:
        config = load(args.config, {**os.environ, **_overrides(args)})
    except ConfigError as error:
        return refused(error, terminal)

    def announce(url: str) -> None:
        if terminal.json:
            terminal.document({"event": "listening", "url": url})
        else:
            terminal.line(f"listening: {url}")

    from orchqueue import daemon

    return daemon.run(config, announce)


def _overrides(args: argparse.Namespace) -> dict[str, str]:
    """The arguments in the form in which the environment overrides a file."""
    given = {"ORCHQUEUE_SERVER__HOST": args.host, "ORCHQUEUE_SERVER__PORT": args.port}
    return {name: value for name, value in given.items() if value is not None}
