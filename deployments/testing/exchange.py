"""One request of a client, over a socket or straight into the gateway's ASGI app."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any

import aiohttp


class Exchange:
    """A request, and what has come back so far. ``status`` is 0 until the answer begins."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.raw = bytearray()
        self._work: asyncio.Task[None] | None = None

    @property
    def ended(self) -> bool:
        """Whether nothing more comes."""
        return self._work is not None and self._work.done()

    async def done(self) -> Exchange:
        """Wait for the end of the answer."""
        assert self._work is not None
        await asyncio.wait([self._work])  # whose own end it must not be when this is cancelled
        self._work.result()
        return self

    async def leave(self) -> None:
        """Go away, as a client that closes its connection."""
        raise NotImplementedError

    def begin(self, work: Any) -> Exchange:
        """Called by who makes the exchange."""
        self._work = asyncio.get_running_loop().create_task(work)
        return self


class SocketExchange(Exchange):
    """Over HTTP, on a connection of its own."""

    def ask(self, url: str, body: Mapping[str, Any], headers: Mapping[str, str]) -> Exchange:
        """Send the request."""
        return self.begin(self._ask(url, body, headers))

    async def _ask(self, url: str, body: Mapping[str, Any], headers: Mapping[str, str]) -> None:
        async with (
            aiohttp.ClientSession() as session,
            session.post(url, json=body, headers=headers) as response,
        ):
            self.status = response.status
            self.headers = {name.lower(): value for name, value in response.headers.items()}
            async for part in response.content.iter_any():
                self.raw += part

    async def leave(self) -> None:
        assert self._work is not None
        self._work.cancel()
        await asyncio.gather(self._work, return_exceptions=True)


class MemoryExchange(Exchange):
    """Into an ASGI app, in the same process."""

    def __init__(self, app: Callable[..., Any]) -> None:
        super().__init__()
        self._app = app
        self._gone = asyncio.Event()
        self._request: list[bytes] = []

    def ask(self, path: str, body: Mapping[str, Any], headers: Mapping[str, str]) -> Exchange:
        """Send the request."""
        told = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        scope = {"type": "http", "method": "POST", "path": path, "headers": told}
        self._request = [json.dumps(body).encode()]
        return self.begin(self._app(scope, self._receive, self._send))

    async def _receive(self) -> dict[str, Any]:
        if self._request:
            return {"type": "http.request", "body": self._request.pop(), "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, event: dict[str, Any]) -> None:
        if self._gone.is_set():
            return  # as a server does, whose client has left
        if event["type"] == "http.response.start":
            self.status = event["status"]
            self.headers = {n.decode(): v.decode() for n, v in event["headers"]}
        else:
            self.raw += event.get("body", b"")

    async def leave(self) -> None:
        self._gone.set()
        assert self._work is not None
        await asyncio.gather(self._work, return_exceptions=True)
