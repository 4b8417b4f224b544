"""The arguments that say which daemon is meant, and the client that they make."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchqueue.client import AsyncClient
    from orchqueue.client_sync import Client


def connection_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--url", metavar="U", help="address of the daemon (`ORCHQUEUE_URL`, else http://127.0.0.1:8700)"
    )
    parser.add_argument("--key", metavar="K", help="API key (`ORCHQUEUE_API_KEY`)")


def json_argument(parser: argparse.ArgumentParser, help: str = "print JSON") -> None:
    parser.add_argument("--json", action="store_true", help=help)


def open_client(args: argparse.Namespace) -> Client:
    """A client without retries: a script that is refused wants to know it now."""
    from orchqueue.client_sync import Client
    from orchqueue.retry import NEVER

    return Client(args.url, args.key, retry=NEVER)


def open_async_client(args: argparse.Namespace) -> AsyncClient:
    """The same for commands that have several tasks under way at once."""
    from orchqueue.client import AsyncClient
    from orchqueue.retry import NEVER

    return AsyncClient(args.url, args.key, retry=NEVER)
