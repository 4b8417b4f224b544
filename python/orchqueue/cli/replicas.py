"""`orchqueue replicas`: the replicas and what they run."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from orchqueue.cli.connection import connection_arguments, json_argument, open_client

if TYPE_CHECKING:
    from orchqueue.cli.terminal import Terminal


def arguments(parser: argparse.ArgumentParser) -> None:
    connection_arguments(parser)
    json_argument(parser)


def run(args: argparse.Namespace, terminal: Terminal) -> int:
    with open_client(args) as client:
        answer = client.replicas()
    if terminal.json:
        terminal.document(answer)
        return 0
    header = ["REPLICA", "POOL", "STATE", "IN FLIGHT", "ENGINE", "VERSION", "MODEL", "SET"]
    terminal.table(header, [_row(replica) for replica in answer.get("replicas", [])])
    return 0


def _row(replica: dict[str, Any]) -> list[object]:
    return [
        replica.get("id"),
        replica.get("pool_id"),
        replica.get("state"),
        f"{replica.get('in_flight')}/{replica.get('slots_total')}",
        replica.get("engine"),
        replica.get("engine_version"),
        _short(replica.get("model_digest")),
        _short(replica.get("replicaset_id")),
    ]


def _short(digest: object) -> str | None:
    return digest.removeprefix("sha256:")[:12] if isinstance(digest, str) else None
