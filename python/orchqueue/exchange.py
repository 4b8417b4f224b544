"""One exchange with the daemon: requests out, answers and failures mapped to this package's types.

Knows HTTP and the error envelope. Does not know tasks; `client.py` does.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from urllib.parse import quote, urlsplit

import httpx

from orchqueue import __version__
from orchqueue.errors import BY_CODE, DaemonUnreachable, Envelope, ProtocolError, ServerError
from orchqueue.retry import retry_after_ms

DEFAULT_URL = "http://127.0.0.1:8700"
#: The daemon sends a comment every 10 s on an open stream; several missed ones mean that it is gone.
STREAM_SILENCE_S = 60.0
PLAIN_TIMEOUT = httpx.Timeout(30.0, connect=5.0)
STREAM_TIMEOUT = httpx.Timeout(STREAM_SILENCE_S, connect=5.0)
#: A waiting call has no heartbeat: it may be silent for as long as the task takes.
WAIT_TIMEOUT = httpx.Timeout(30.0, connect=5.0, read=None)

_CONNECT_HINT = "start one with `orchqueue serve`, or name another with `--url` or `ORCHQUEUE_URL`"


def new_http_client(
    url: str | None, key: str | None, transport: httpx.AsyncBaseTransport | None
) -> httpx.AsyncClient:
    """An httpx client for the daemon at `url`; url and key default to the environment."""
    url = url or os.environ.get("ORCHQUEUE_URL") or DEFAULT_URL
    key = key or os.environ.get("ORCHQUEUE_API_KEY")
    if urlsplit(url).scheme not in ("http", "https"):
        raise ValueError(f"not an http or https address: `{url}`")
    headers = {"User-Agent": f"orchqueue-python/{__version__}"}
    if key:
        headers["Authorization"] = f"Bearer {key}"
    return httpx.AsyncClient(
        base_url=url,
        headers=headers,
        timeout=PLAIN_TIMEOUT,
        transport=transport,
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=64),
        # A proxy from the environment must not catch the way to a daemon on this machine.
        trust_env=False,
    )


def segment(value: str) -> str:
    """`value` as one segment of a path, whatever it holds."""
    return quote(str(value), safe="")


@contextmanager
def connection_errors(base_url: httpx.URL) -> Iterator[None]:
    """Maps httpx's failures to `DaemonUnreachable` and `ProtocolError`."""
    try:
        yield
    except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
        raise DaemonUnreachable(f"no daemon answers at `{base_url}`: {error}", hint=_CONNECT_HINT) from error
    except (httpx.TimeoutException, httpx.NetworkError, httpx.RemoteProtocolError) as error:
        what = str(error) or type(error).__name__
        raise DaemonUnreachable(f"the daemon at `{base_url}` broke off: {what}") from error
    except httpx.HTTPError as error:
        raise ProtocolError(f"`{base_url}` did not answer as expected: {error}") from error


def failure(response: httpx.Response) -> ServerError | ProtocolError:
    """The typed failure of an answer that is not 2xx and whose body has been read."""
    try:
        data = response.json()
    except ValueError:
        data = None
    if not isinstance(data, dict) or not isinstance(data.get("code"), str):
        return ProtocolError(
            f"`{response.url}` answered {response.status_code} without an OrchQueue error",
            hint="check that the address is that of an orchqueue daemon",
        )
    envelope = Envelope.from_wire(data)
    envelope = replace(
        envelope,
        retry_after_ms=envelope.retry_after_ms
        if envelope.retry_after_ms is not None
        else retry_after_ms(response.headers),
        correlation_id=envelope.correlation_id or response.headers.get("x-correlation-id"),
    )
    return BY_CODE.get(envelope.code, ServerError)(envelope, http_status=response.status_code)


def json_object(response: httpx.Response) -> dict[str, Any]:
    """The body of a 2xx answer as an object; every other answer is raised as its typed failure."""
    if not response.is_success:
        raise failure(response)
    try:
        data = response.json()
    except ValueError as error:
        raise ProtocolError(f"`{response.url}` answered something that is not JSON") from error
    if not isinstance(data, dict):
        raise ProtocolError(f"`{response.url}` answered JSON that is not an object")
    return data


def is_event_stream(headers: Mapping[str, str]) -> bool:
    return headers.get("content-type", "").startswith("text/event-stream")
