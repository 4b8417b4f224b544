"""`orchqueue config`: checks a configuration, shows where each value came from, prints the schema."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from orchqueue.cli.connection import json_argument
from orchqueue.cli.failure import USAGE

if TYPE_CHECKING:
    from orchqueue.cli.terminal import Terminal
    from orchqueue.config import Config, ConfigError


def arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="check|show|schema", required=True)
    for name, help in (("check", "say what is wrong with it"), ("show", "print every value and its origin")):
        action = actions.add_parser(name, help=help)
        action.add_argument(
            "file", nargs="?", metavar="FILE", help="by default none: defaults and environment"
        )
        action.add_argument("--config", metavar="FILE", help="the same, as `serve` takes it")
        json_argument(action)
    json_argument(actions.add_parser("schema", help="print the JSON Schema of the file"))


def config_argument(parser: argparse.ArgumentParser) -> None:
    """For commands that work on a daemon's files."""
    parser.add_argument("--config", metavar="F", help="configuration file; by default the defaults hold")


def load_config(path: str | None) -> Config:
    """The configuration that a daemon started here would have."""
    from orchqueue.config import load

    return load(path, os.environ)


def run(args: argparse.Namespace, terminal: Terminal) -> int:
    if args.action == "schema":
        from orchqueue.config import schema

        terminal.pretty(schema())
        return 0
    from orchqueue.config import ConfigError

    try:
        config = load_config(args.file or args.config)
    except ConfigError as error:
        return refused(error, terminal)
    if args.action == "check":
        _checked(config, terminal)
    else:
        _shown(config, terminal)
    return 0


def refused(error: ConfigError, terminal: Terminal) -> int:
    """Shows every problem of a configuration that cannot be used."""
    if terminal.json:
        problems = [
            {"path": one.path, "message": one.message, "hint": one.hint, "origin": one.origin}
            for one in error.problems
        ]
        terminal.document({"ok": False, "problems": problems})
        return USAGE
    for problem in error.problems:
        place = f"{problem.origin}: " if problem.origin else ""
        subject = f"`{problem.path}`: " if problem.path else ""
        terminal.note(f"{terminal.colored('error:', 'red', err=True)} {place}{subject}{problem.message}")
        if problem.hint:
            terminal.note(f"{terminal.colored('hint:', 'yellow', err=True)} {problem.hint}")
    return USAGE


def _checked(config: Config, terminal: Terminal) -> None:
    if terminal.json:
        terminal.document({"ok": True, "warnings": list(config.warnings)})
        return
    for warning in config.warnings:
        terminal.note(f"{terminal.colored('warning:', 'yellow', err=True)} {warning}")
    pools = ", ".join(f"`{pool.id}` ({pool.engine}, replicas: {len(pool.replicas)})" for pool in config.pools)
    terminal.line(f"ok: listens on {config.server.host}:{config.server.port}, pools: {pools}")


def _shown(config: Config, terminal: Terminal) -> None:
    if terminal.json:
        terminal.document({"config": config.effective, "origins": dict(config.origins)})
        return
    from orchqueue.config import effective_values

    terminal.table(["KEY", "VALUE", "FROM"], effective_values(config))
