"""A replica's own port: the token streams, and ``/health`` and ``/metrics`` beside them.

Only gateways may open streams: a connection carries the platform's internal token.
"""

from __future__ import annotations

import asyncio
import hmac
import socket
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import uvicorn

from deployments import wire
from deployments.quiet_server import QuietServer
from deployments.streams import TokenStreams

App = Callable[[dict[str, Any], Callable[[], Any], Callable[[dict[str, Any]], Any]], Any]

_PROBES = frozenset({"/health", "/metrics"})


class ReplicaApp:
    """Routes by path: token streams for gateways, ``probes`` for everybody, ``pages`` for the
    platform's own operators, nothing else."""

    def __init__(
        self,
        probes: App,
        streams: TokenStreams,
        token: str,
        pages: Mapping[str, App] = MappingProxyType({}),
    ) -> None:
        self._pages = pages
        self._probes = probes
        self._streams = streams
        self._token = token.encode()

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            return
        path = scope["path"]
        if path in _PROBES and scope["type"] == "http":
            await self._probes(scope, receive, send)
        elif not self._trusted(scope):
            await _refuse(scope, send, 401, b"replicas answer only their gateway\n")
        elif path == wire.PATH and scope["type"] == "websocket":
            await self._streams.serve(receive, send)
        elif path in self._pages and scope["type"] == "http":
            await self._pages[path](scope, receive, send)
        else:
            await _refuse(scope, send, 404, b"replicas speak over their token streams only\n")

    def _trusted(self, scope: dict[str, Any]) -> bool:
        given = dict(scope["headers"]).get(wire.TOKEN_HEADER.encode(), b"")
        return hmac.compare_digest(given, self._token)


async def _refuse(scope: dict[str, Any], send: Any, status: int, body: bytes) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 4000 + status})
        return
    await answer(send, status, body)


async def answer(send: Any, status: int, body: bytes, content_type: bytes = b"text/plain") -> None:
    """A whole HTTP response."""
    headers = [(b"content-type", content_type), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class Listener:
    """An HTTP server on a free port of ``host``, on the running loop. A ``port`` that is given is
    shared with whoever had it before, until that ends."""

    def __init__(self, app: App, host: str, port: int = 0) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if port:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._socket.bind((host, port))
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
        self._server.force_exit = True
        self._server.end()
        if self._task is not None:
            await self._task


class _Server(QuietServer):
    """The process belongs to Ray: no signal handlers of uvicorn's."""

    def capture_signals(self) -> Any:
        import contextlib

        return contextlib.nullcontext()
