"""A replica's own HTTP port: vLLM's OpenAI app, and the token streams beside it.

Only gateways may come here: every request carries the platform's internal token.
"""

from __future__ import annotations

import asyncio
import hmac
import socket
from collections.abc import Callable
from typing import Any

import uvicorn

from deployments import wire
from deployments.streams import TokenStreams

App = Callable[[dict[str, Any], Callable[[], Any], Callable[[dict[str, Any]], Any]], Any]

_UNCHECKED = frozenset({"/health", "/metrics"})


class ReplicaApp:
    """Routes by path and counts what is in flight, so that draining can wait for it."""

    def __init__(self, openai: App, streams: TokenStreams, token: str) -> None:
        self._openai = openai
        self._streams = streams
        self._token = token.encode()
        self._http_in_flight = 0

    @property
    def in_flight(self) -> int:
        """Token streams and HTTP requests that have not ended."""
        return self._http_in_flight + self._streams.in_flight

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            return
        path = scope["path"]
        if path not in _UNCHECKED and not self._trusted(scope):
            await _refuse(scope, send)
        elif path == wire.PATH and scope["type"] == "websocket":
            await self._streams.serve(receive, send)
        elif path in _UNCHECKED:
            await self._openai(scope, receive, send)
        else:
            await self._count(scope, receive, send)

    async def _count(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        self._http_in_flight += 1
        try:
            await self._openai(scope, receive, send)
        finally:
            self._http_in_flight -= 1

    def _trusted(self, scope: dict[str, Any]) -> bool:
        given = dict(scope["headers"]).get(wire.TOKEN_HEADER.encode(), b"")
        return hmac.compare_digest(given, self._token)


async def _refuse(scope: dict[str, Any], send: Any) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 4401})
        return
    headers = [(b"content-type", b"text/plain")]
    await send({"type": "http.response.start", "status": 401, "headers": headers})
    await send({"type": "http.response.body", "body": b"replicas answer only their gateway\n"})


class Listener:
    """An HTTP server on a free port of ``host``, on the running loop."""

    def __init__(self, app: App, host: str) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind((host, 0))
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="off",
            ws="websockets-sansio",
            ws_per_message_deflate=False,
            ws_max_size=64 * 1024 * 1024,
            timeout_keep_alive=120,
        )
        self._server = _Server(config)
        self._task: asyncio.Task[None] | None = None

    @property
    def address(self) -> str:
        """``host:port``."""
        host, port = self._socket.getsockname()[:2]
        return f"{host}:{port}"

    async def start(self) -> None:
        """Accept connections."""
        serve = self._server.serve(sockets=[self._socket])
        self._task = asyncio.get_running_loop().create_task(serve)
        while not self._server.started:
            if self._task.done():
                await self._task
            await asyncio.sleep(0.01)

    async def stop(self) -> None:
        """Stop accepting and close what is open."""
        self._server.should_exit = True
        self._server.force_exit = True
        if self._task is not None:
            await self._task


class _Server(uvicorn.Server):
    """The process belongs to Ray: no signal handlers of uvicorn's."""

    def capture_signals(self) -> Any:
        import contextlib

        return contextlib.nullcontext()
