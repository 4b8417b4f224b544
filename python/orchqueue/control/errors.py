"""Errors of the control plane: the envelope of the contract, and nothing else, leaves this app (ORCH-2006).

What a client may know is an `ApiError`. Everything else is a fault of the daemon: it is logged with its cause
under the correlation id, and the client gets `INTERNAL` with that id.
"""

from __future__ import annotations

import logging
import uuid
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_log = logging.getLogger(__name__)

CORRELATION_HEADER = "x-correlation-id"

STATUS = {
    "INVALID_PARAMS": 400,
    "UNAUTHENTICATED": 401,
    "FORBIDDEN": 403,
    "NOT_FOUND": 404,
    "INTERNAL": 500,
}
"""Codes of the registry that this app answers with, and their HTTP status."""

_RETRIABLE = {"INTERNAL"}


class ApiError(Exception):
    """An answer that is an error; `message` and `hint` are for the client."""

    def __init__(
        self, code: str, message: str, *, hint: str | None = None, reason: str | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint
        self.reason = reason
        self.status = STATUS[code]


class Border:
    """Outermost layer: gives every answer its correlation id (ORCH-4010) and lets no exception out."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        correlation_id = Headers(scope=scope).get(CORRELATION_HEADER) or uuid.uuid4().hex
        scope.setdefault("state", {})["correlation_id"] = correlation_id
        begun = False

        async def send_with_id(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                MutableHeaders(scope=message)[CORRELATION_HEADER] = correlation_id
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except Exception:
            _log.exception(
                "a request failed", extra={"correlation_id": correlation_id, "path": scope["path"]}
            )
            if begun:
                raise
            error = ApiError("INTERNAL", "the daemon failed to answer; its log has the cause")
            await _response(error, correlation_id)(scope, receive, send_with_id)


async def on_api_error(request: Request, error: Exception) -> Response:
    """Handler for `ApiError`."""
    assert isinstance(error, ApiError)  # noqa: S101 -- registered for this type only
    return _response(error, request.state.correlation_id)


async def on_http_exception(request: Request, error: Exception) -> Response:
    """Handler for what Starlette itself refuses: an unknown path or method."""
    assert isinstance(error, HTTPException)  # noqa: S101 -- registered for this type only
    path, correlation_id = request.url.path, request.state.correlation_id
    if error.status_code == 405:
        refusal = ApiError(
            "INVALID_PARAMS",
            f"`{path}` does not take the method: `{request.method}`",
            reason="method_not_allowed",
        )
        refusal.status = 405
        return _response(refusal, correlation_id, {"Allow": (error.headers or {}).get("Allow", "")})
    missing = ApiError(
        "NOT_FOUND", f"there is nothing at `{path}`", hint="the paths are in the OpenAPI documents"
    )
    return _response(missing, correlation_id)


def _response(error: ApiError, correlation_id: str, headers: dict[str, str] | None = None) -> Response:
    body: dict[str, Any] = {
        "code": error.code,
        "message": error.message,
        "retriable": error.code in _RETRIABLE,
        "correlation_id": correlation_id,
    }
    if error.reason is not None:
        body["reason"] = error.reason
    if error.hint is not None:
        body["hint"] = error.hint
    return JSONResponse(body, error.status, headers)
