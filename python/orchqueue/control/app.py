"""The ASGI app of the control plane: what the front door does not answer itself comes here.

It listens on a Unix socket that only the daemon's own user can open, and believes the identity headers that
the front door sets.
"""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware

from orchqueue import __version__
from orchqueue.config.runtime import Config
from orchqueue.control import capabilities, metrics, pools, replicasets, tasks
from orchqueue.control.errors import ApiError, Border, on_api_error, on_http_exception
from orchqueue.control.sources import DaemonSource, HistorySource, PoolsSource, Sources

_RESOURCES = (metrics, pools, replicasets, capabilities, tasks)


def build(daemon: DaemonSource, store: HistorySource, manager: PoolsSource, config: Config) -> Starlette:
    """The app over these sources; it keeps no state of its own."""
    sources = Sources(daemon, store, manager, config, __version__)
    app = Starlette(
        routes=[route for resource in _RESOURCES for route in resource.routes(sources)],
        middleware=[Middleware(Border)],
        exception_handlers={ApiError: on_api_error, HTTPException: on_http_exception},
    )
    # A path with a slash too much is another path, not a redirect to a socket that no client can reach.
    app.router.redirect_slashes = False
    return app
