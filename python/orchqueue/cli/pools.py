"""`orchqueue pools`: the pools and their health."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from orchqueue.cli.connection import connection_arguments, json_argument, open_client

if TYPE_CHECKING:
    from orchqueue.cli.terminal import Terminal


def arguments(parser: argparse.ArgumentParser) -> None:
    connection_arguments(parser)
    json_argument(parser)


def run(args: argparse.Namespace, terminal: Terminal) -> int:
    with open_client(args) as client:
        answer = client.pools()
    if terminal.json:
        terminal.document(answer)
        return 0
    rows = []
    for pool in answer.get("pools", []):
        metrics = pool.get("metrics", {})
        slots = f"{metrics.get('slots_free')}/{metrics.get('slots_total')}"
        rows.append(
            [
                pool.get("pool_id"),
                pool.get("state"),
                metrics.get("queue_depth"),
                slots,
                pool.get("last_error"),
            ]
        )
    terminal.table(["POOL", "STATE", "QUEUED", "FREE SLOTS", "LAST ERROR"], rows)
    return 0
