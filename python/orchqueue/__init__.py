"""orchqueue: one daemon between your code and your LLM replicas.

    import orchqueue

    with orchqueue.Client() as client:
        for event in client.stream("Say hello.", seed=7):
            if isinstance(event, orchqueue.Token):
                print(event.text, end="")

Names are loaded on first use, so that `import orchqueue` stays cheap.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchqueue.client import AsyncClient, AsyncTask, AsyncTaskStream, Retry
    from orchqueue.client_sync import Client, Task, TaskStream
    from orchqueue.determinism.verify import Verification, verify
    from orchqueue.errors import (
        AttemptError,
        Canceled,
        DaemonUnreachable,
        InternalError,
        OrchqueueError,
        ProtocolError,
        RefusedError,
        RequestError,
        ServerError,
        StreamInterrupted,
        TransportError,
    )
    from orchqueue.events import End, Error, Event, Metrics, Started, Token, UnknownEvent

__version__ = "0.1.0"

_HOME = {
    "AsyncClient": "client",
    "AsyncTask": "client",
    "AsyncTaskStream": "client",
    "AttemptError": "errors",
    "Canceled": "errors",
    "Client": "client_sync",
    "DaemonUnreachable": "errors",
    "End": "events",
    "Error": "events",
    "Event": "events",
    "InternalError": "errors",
    "Metrics": "events",
    "OrchqueueError": "errors",
    "ProtocolError": "errors",
    "RefusedError": "errors",
    "RequestError": "errors",
    "Retry": "client",
    "ServerError": "errors",
    "Started": "events",
    "StreamInterrupted": "errors",
    "Task": "client_sync",
    "TaskStream": "client_sync",
    "Token": "events",
    "TransportError": "errors",
    "UnknownEvent": "events",
    "Verification": "determinism.verify",
    "verify": "determinism.verify",
}

__all__ = [
    "AsyncClient",
    "AsyncTask",
    "AsyncTaskStream",
    "AttemptError",
    "Canceled",
    "Client",
    "DaemonUnreachable",
    "End",
    "Error",
    "Event",
    "InternalError",
    "Metrics",
    "OrchqueueError",
    "ProtocolError",
    "RefusedError",
    "RequestError",
    "Retry",
    "ServerError",
    "Started",
    "StreamInterrupted",
    "Task",
    "TaskStream",
    "Token",
    "TransportError",
    "UnknownEvent",
    "Verification",
    "__version__",
    "verify",
]


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module `orchqueue` has no attribute `{name}`")
    value = getattr(importlib.import_module(f"orchqueue.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
