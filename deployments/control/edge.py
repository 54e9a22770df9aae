"""The application's edge: request ids, bounds on bodies, one shape of errors."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from deployments.client_headers import usable_id
from weir.errors import (
    BadRequestError,
    BodyTooLargeError,
    InternalError,
    MethodNotAllowedError,
    NotFoundError,
    RequestTimeoutError,
    WeirError,
    error_body,
    error_headers,
)
from weir.logs import request_logging, stack_of

_LOG = logging.getLogger("weir.control")
MAX_BODY_BYTES: Final = 256 * 1024
_BODY_TIMEOUT_S: Final = 30.0
_ID: Final = b"x-request-id"
_Scope = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
_Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Edge:
    """ASGI, around everything else. A request has its whole body before anybody looks at it, and
    an answer has the request's id."""

    def __init__(self, app: Any, body_timeout_s: float = _BODY_TIMEOUT_S) -> None:
        self._app = app
        self._body_timeout_s = body_timeout_s

    async def __call__(self, scope: _Scope, receive: _Receive, send: _Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        name, begun = _request_id(scope), False

        async def named(event: MutableMapping[str, Any]) -> None:
            nonlocal begun
            if event["type"] == "http.response.start":
                begun = True
                event["headers"] = [*event.get("headers", ()), (_ID, name.encode())]
            await send(event)

        with request_logging(name, ""):
            try:
                body = await self._body(receive)
                if body is not None:
                    await self._app(scope, _replaying(body, receive), named)
            except WeirError as error:
                await _answer(error)(scope, receive, named)
            except Exception as error:
                _LOG.error("request failed: %s", stack_of(error), extra={"path": scope["path"]})
                if begun:
                    raise
                await _answer(InternalError("An internal error occurred."))(scope, receive, named)

    async def _body(self, receive: _Receive) -> bytes | None:
        """The whole body; None if the client left before its end.

        Raises:
            BodyTooLargeError: it is longer than :data:`MAX_BODY_BYTES`.
            RequestTimeoutError: it does not come.
        """
        body = b""
        try:
            async with asyncio.timeout(self._body_timeout_s):
                while True:
                    event = await receive()
                    if event["type"] == "http.disconnect":
                        return None
                    part: bytes = event.get("body", b"")
                    body += part
                    if len(body) > MAX_BODY_BYTES:
                        raise BodyTooLargeError(f"The body is larger than {MAX_BODY_BYTES} bytes.")
                    if not event.get("more_body", False):
                        return body
        except TimeoutError:
            raise RequestTimeoutError("The body did not arrive in time.") from None


def add_errors(app: FastAPI) -> None:
    """All errors get the shape of :mod:`weir.errors`."""

    async def on_weir_error(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, WeirError)
        return _answer(error)

    async def on_http_error(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        path = request.url.path
        if error.status_code == 404:
            return _answer(NotFoundError(f"There is nothing at {path}."))
        if error.status_code == 405:
            response = _answer(MethodNotAllowedError(f"{request.method} is not allowed on {path}."))
            response.headers["allow"] = (error.headers or {}).get("allow", "GET")
            return response
        return _answer(BadRequestError(f"{error.detail}."))

    async def on_invalid(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:])
        return _answer(BadRequestError(f"{where}: {first['msg']}.", param=where or None))

    app.add_exception_handler(WeirError, on_weir_error)
    app.add_exception_handler(HTTPException, on_http_error)
    app.add_exception_handler(RequestValidationError, on_invalid)


def _answer(error: WeirError) -> JSONResponse:
    return JSONResponse(error_body(error), error.status, headers=error_headers(error))


def _request_id(scope: _Scope) -> str:
    given = next((value for name, value in scope["headers"] if name == _ID), b"")
    return usable_id(given.decode("latin-1")) or uuid.uuid4().hex


def _replaying(body: bytes, receive: _Receive) -> _Receive:
    given = False

    async def replay() -> MutableMapping[str, Any]:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
