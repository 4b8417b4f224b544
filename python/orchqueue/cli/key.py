"""`orchqueue key`: the API keys of a store. A running daemon notices a change within a second."""

from __future__ import annotations

import argparse
import datetime
from typing import TYPE_CHECKING, Any

from orchqueue.cli.config import config_argument, load_config
from orchqueue.cli.connection import json_argument

if TYPE_CHECKING:
    from orchqueue.cli.terminal import Terminal
    from orchqueue.keys import KeyRing
    from orchqueue.store import ApiKey


def arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="create|list|revoke", required=True)
    create = actions.add_parser("create", help="make a key; it is shown this once")
    create.add_argument("--tenant", metavar="T", default="default", help="whom the key is for (default)")
    create.add_argument(
        "--role",
        metavar="R",
        action="append",
        help="admin, operator, approver or viewer; may be given several times (operator)",
    )
    create.add_argument("--label", metavar="TEXT", default="", help="a note to recognise it by")
    revoke = actions.add_parser("revoke", help="end a key")
    revoke.add_argument("key_id", metavar="KEY_ID")
    revoke.add_argument(
        "--reopen", action="store_true", help="also the last one: afterwards the daemon is open on loopback"
    )
    for action in (create, actions.add_parser("list", help="list the keys"), revoke):
        config_argument(action)
        json_argument(action)


def run(args: argparse.Namespace, terminal: Terminal) -> int:
    from orchqueue.keys import KeyRing
    from orchqueue.store import Store

    with Store.open(load_config(args.config).store.url, owner=False) as store:
        ring = KeyRing(store)
        if args.action == "create":
            _create(ring, args, terminal)
        elif args.action == "list":
            _list(ring, terminal)
        else:
            _revoke(ring, args, terminal)
    return 0


def _create(ring: KeyRing, args: argparse.Namespace, terminal: Terminal) -> None:
    created = ring.create(args.tenant, args.role or ["operator"], args.label)
    if terminal.json:
        terminal.document({**_document(created.key), "key": created.text})
        return
    terminal.line(created.text)
    terminal.note(
        f"key `{created.key.key_id}` of tenant `{created.key.tenant}`: it is not shown again.\n"
        "hint: export it as `ORCHQUEUE_API_KEY`; from now on the daemon wants a key for every request"
    )


def _list(ring: KeyRing, terminal: Terminal) -> None:
    keys = ring.list()
    if terminal.json:
        terminal.document({"keys": [_document(key) for key in keys]})
        return
    rows = [
        [
            key.key_id,
            key.tenant,
            ",".join(key.roles),
            _moment(key.created_ms),
            _moment(key.revoked_ms),
            key.label,
        ]
        for key in keys
    ]
    terminal.table(["KEY_ID", "TENANT", "ROLES", "CREATED", "REVOKED", "LABEL"], rows)


def _revoke(ring: KeyRing, args: argparse.Namespace, terminal: Terminal) -> None:
    ring.revoke(args.key_id, reopen=args.reopen)
    if terminal.json:
        terminal.document({"key_id": args.key_id, "revoked": True})
    else:
        terminal.line(f"key `{args.key_id}`: revoked")


def _document(key: ApiKey) -> dict[str, Any]:
    return {
        "key_id": key.key_id,
        "tenant": key.tenant,
        "roles": list(key.roles),
        "label": key.label,
        "created_ms": key.created_ms,
        "revoked_ms": key.revoked_ms,
    }


def _moment(ms: int | None) -> str | None:
    if ms is None:
        return None
    return datetime.datetime.fromtimestamp(ms / 1000, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
