"""`orchqueue receipt-key`: the keys that sign receipts. Only their public halves are ever printed."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from orchqueue.cli.config import config_argument, load_config
from orchqueue.cli.connection import json_argument

if TYPE_CHECKING:
    from orchqueue.cli.terminal import Terminal


def arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="list|rotate|export", required=True)
    rotate = actions.add_parser("rotate", help="make a new one; the daemon signs with it from its next start")
    export = actions.add_parser("export", help="print the public keys, for `orchqueue verify --keys`")
    export.add_argument("--output", metavar="FILE", help="write them to this file")
    for action in (actions.add_parser("list", help="list them, the active one first"), rotate, export):
        config_argument(action)
        json_argument(action)


def run(args: argparse.Namespace, terminal: Terminal) -> int:
    from orchqueue.determinism.keys import ReceiptKeys

    keys = ReceiptKeys.open(load_config(args.config).store.files.keys)
    if args.action == "export":
        _export(keys.export(), args, terminal)
        return 0
    if args.action == "rotate":
        made = keys.rotate()
        if terminal.json:
            terminal.document(made.public())
        else:
            terminal.line(f"receipt key `{made.key_id}`: active")
            terminal.note("hint: restart the daemon; until then it signs with the key before")
        return 0
    if terminal.json:
        terminal.document(keys.export())
    else:
        rows = [[key.key_id, key.active, key.public_hex] for key in keys.list()]
        terminal.table(["KEY_ID", "ACTIVE", "PUBLIC KEY"], rows)
    return 0


def _export(document: dict[str, object], args: argparse.Namespace, terminal: Terminal) -> None:
    if args.output:
        Path(args.output).write_text(json.dumps(document, indent=2) + "\n")
    elif terminal.json:
        terminal.document(document)
    else:
        terminal.pretty(document)
