"""`orchqueue doctor`: is everything there to run a daemon? One line per thing, with what to do about it."""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import socket
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from orchqueue.cli.config import config_argument
from orchqueue.cli.connection import connection_arguments, json_argument, open_client

if TYPE_CHECKING:
    from orchqueue.cli.terminal import Terminal
    from orchqueue.config import Config

_COLORS = {"ok": "green", "warn": "yellow", "fail": "red"}
OLDEST_PYTHON = (3, 11)


@dataclass(frozen=True, slots=True)
class Finding:
    """What came of one check. `status` is `ok`, `warn` or `fail`."""

    name: str
    status: str
    detail: str
    hint: str | None = None


def arguments(parser: argparse.ArgumentParser) -> None:
    config_argument(parser)
    connection_arguments(parser)
    json_argument(parser)


def run(args: argparse.Namespace, terminal: Terminal) -> int:
    findings = [check() for check in (python_version, system, core_module, embedded_engine, shipped_model)]
    findings += configured(args)
    ok = all(finding.status != "fail" for finding in findings)
    if terminal.json:
        terminal.document({"ok": ok, "checks": [asdict(finding) for finding in findings]})
        return 0 if ok else 1
    for finding in findings:
        status = terminal.colored(f"{finding.status:<5}", _COLORS[finding.status])
        terminal.line(f"{status}{finding.name}: {finding.detail}")
        if finding.hint:
            terminal.line(f"     hint: {finding.hint}")
    return 0 if ok else 1


def python_version() -> Finding:
    found = platform.python_version()
    if sys.version_info < OLDEST_PYTHON:
        return Finding("python", "fail", found, "install Python 3.11 or later")
    return Finding("python", "ok", found)


def system() -> Finding:
    found = f"{platform.system()} {platform.machine()}"
    if platform.system() != "Linux":
        return Finding("system", "warn", found, "only Linux is tested")
    return Finding("system", "ok", found)


def core_module() -> Finding:
    try:
        from orchqueue import _core
    except ImportError as error:
        return Finding("core", "fail", f"cannot be loaded: {error}", "build it: `make setup`")
    return Finding("core", "ok", f"loaded, error codes: {len(_core.error_registry())}")


def embedded_engine() -> Finding:
    if importlib.util.find_spec("xllamacpp") is None:
        hint = "install it: `pip install 'orchqueue[embedded]'`, or attach a running engine by its `url`"
        return Finding("engine", "warn", "llama.cpp (xllamacpp) is not installed", hint)
    from importlib.metadata import version

    return Finding("engine", "ok", f"llama.cpp (xllamacpp {version('xllamacpp')})")


def shipped_model() -> Finding:
    from orchqueue import models

    try:
        for name in models.catalog():
            models.path(name)
    except models.ModelError as error:
        return Finding("model", "fail", str(error).partition("\n")[0], "install the package again")
    return Finding(
        "model", "ok", ", ".join(f"{one.name}, {one.digest[:19]}…" for one in models.catalog().values())
    )


def configured(args: argparse.Namespace) -> list[Finding]:
    """The checks that need a configuration; where it cannot be used, only that is reported."""
    from orchqueue.cli.config import load_config
    from orchqueue.config import ConfigError

    try:
        config = load_config(args.config)
    except ConfigError as error:
        return [Finding("config", "fail", str(error.problems[0]), "`orchqueue config check` shows all of it")]
    daemon = running_daemon(args)
    return [
        Finding("config", "ok", args.config or "the defaults"),
        store_folder(config.store.files.journal.parent),
        *([] if daemon.status == "ok" and args.url is None else [free_port(config)]),
        daemon,
    ]


def store_folder(folder: Path) -> Finding:
    if not folder.is_dir():
        return Finding("store", "fail", f"no such folder: `{folder}`", f"make it: `mkdir -p {folder}`")
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        return Finding("store", "fail", f"`{folder}`: {error.strerror}", "choose another `store.url`")
    return Finding("store", "ok", f"`{folder}` is writable")


def free_port(config: Config) -> Finding:
    host, port = config.server.host, config.server.port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            hint = "choose another with `orchqueue serve --port`"
            return Finding("port", "fail", f"{host}:{port}: {os.strerror(error.errno or 0)}", hint)
    return Finding("port", "ok", f"{host}:{port} is free")


def running_daemon(args: argparse.Namespace) -> Finding:
    from orchqueue.errors import DaemonUnreachable, OrchqueueError

    with open_client(args) as client:
        try:
            if not client.ready():
                return Finding("daemon", "warn", f"{client.url} is starting or stopping", "try again")
            pools = client.pools().get("pools", [])
        except DaemonUnreachable:
            status = "warn" if args.url is None else "fail"
            return Finding("daemon", status, f"none runs at {client.url}", "start one: `orchqueue serve`")
        except OrchqueueError as error:
            return Finding("daemon", "warn", f"{client.url}: {error}", error.hint)
        unready = [pool["pool_id"] for pool in pools if not pool.get("ready")]
        if unready:
            hint = "`orchqueue pools` shows why"
            return Finding("daemon", "warn", f"{client.url}: not ready: {', '.join(unready)}", hint)
        return Finding("daemon", "ok", f"{client.url}, pools ready: {len(pools)}")
