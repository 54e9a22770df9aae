"""The admin and tenant API, and ``/dashboard``, on the clients' port: a gateway hands requests for
them on to the control process and its answers back, as they are. While that is away, only these
paths are."""

from __future__ import annotations

import asyncio
from typing import Final
from urllib.parse import quote

import aiohttp
from yarl import URL

from deployments.gateway import http
from deployments.gateway.body_room import BodyRoom, announced_bytes
from deployments.gateway.http import ClientGoneError, HeaderPairs, Receive, Scope, Send
from deployments.gateway.request import HttpDoor
from weir.errors import OverloadedError, RequestTimeoutError, WeirError, error_body

PREFIXES: Final = ("/admin/v1", "/v1/tenant", "/dashboard")
MAX_BODY_BYTES: Final = 256 * 1024
_BODY_TIMEOUT_S: Final = 60.0
_TIMEOUT = aiohttp.ClientTimeout(total=None, connect=2.0, sock_read=60.0)
_METRICS_TIMEOUT_S: Final = 2.0
#: No tenant has this id.
_NOBODY: Final = ""
_MOST_CONNECTIONS: Final = 64
# Those of one connection (RFC 9110, section 7.6.1), and what the next one says for itself.
_OF_THE_CONNECTION: Final = frozenset(
    (
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"expect",
        b"host",
        b"content-length",
        b"date",
        b"server",
    )
)
_NOT_ANSWERED: Final = _OF_THE_CONNECTION - {b"content-length"}


class ControlDoor:
    """``address``: ``unix:PATH`` or ``http://HOST:PORT``. ``room``: that of all bodies; who asks is
    known to the control process only, so that its bodies are those of nobody. Needs a running loop.
    """

    def __init__(self, address: str, room: BodyRoom | None = None) -> None:
        self._room = room or BodyRoom()
        path = address.removeprefix("unix:")
        local = path != address
        connector = (
            aiohttp.UnixConnector(path, limit=_MOST_CONNECTIONS)
            if local
            else aiohttp.TCPConnector(limit=_MOST_CONNECTIONS)
        )
        self._base = "http://control" if local else address.rstrip("/")
        self._session = aiohttp.ClientSession(
            connector=connector,
            timeout=_TIMEOUT,
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("user-agent", "accept", "accept-encoding", "content-type"),
        )

    @staticmethod
    def leads(path: str) -> bool:
        """Whether a path is of the admin or tenant API, or the dashboard's."""
        return any(path == prefix or path.startswith(f"{prefix}/") for prefix in PREFIXES)

    async def close(self) -> None:
        """Let go of all connections."""
        await self._session.close()

    async def metrics(self) -> str | None:
        """The control process' exposition. None: it does not answer."""
        try:
            async with (
                asyncio.timeout(_METRICS_TIMEOUT_S),
                self._session.get(f"{self._base}/metrics") as response,
            ):
                return await response.text() if response.status == 200 else None
        except (aiohttp.ClientError, OSError, TimeoutError):
            return None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI: one request, handed on."""
        answer, held = _Answer(send), 0
        try:
            door = HttpDoor(scope, receive)
            held = self._room.take(_NOBODY, announced_bytes(door, MAX_BODY_BYTES))
            await self._forward(scope, await _body(scope, receive), answer)
        except ClientGoneError:
            return
        except WeirError as error:
            await answer.fail(scope, error)
        except (aiohttp.ClientError, OSError, TimeoutError):
            away = OverloadedError("The admin API is not there now.", retry_after_s=2.0)
            await answer.fail(scope, away)
        finally:
            self._room.give_back(_NOBODY, held)

    async def _forward(self, scope: Scope, body: bytes, answer: _Answer) -> None:
        async with self._session.request(
            scope["method"],
            URL(self._base + _target(scope), encoded=True),
            headers=[
                (name.decode("latin-1"), value.decode("latin-1"))
                for name, value in scope["headers"]
                if name not in _OF_THE_CONNECTION
            ],
            data=body or None,
            allow_redirects=False,
        ) as response:
            pairs = [
                (name.lower(), value)
                for name, value in response.raw_headers
                if name.lower() not in _NOT_ANSWERED
            ]
            await answer.start(response.status, pairs)
            async for chunk in response.content.iter_any():
                await answer.write(chunk)
            await answer.end()


class _Answer:
    """What the client is told. What has begun can only be broken off."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._begun = False

    async def start(self, status: int, headers: HeaderPairs) -> None:
        self._begun = True
        await http.start(self._send, status, headers)

    async def write(self, chunk: bytes) -> None:
        await self._send({"type": "http.response.body", "body": chunk, "more_body": True})

    async def end(self) -> None:
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def fail(self, scope: Scope, error: WeirError) -> None:
        """Raises:
        ConnectionError: a part of the answer has been sent, so the connection must break.
        """
        if self._begun:
            raise ConnectionError("the control process broke off an answer")
        error.request_id = http.request_id(scope)
        await http.send_error(self._send, error, error_body(error))


async def _body(scope: Scope, receive: Receive) -> bytes:
    """Raises:
    BodyTooLargeError, RequestTimeoutError, ClientGoneError: it does not come, or not so.
    """
    try:
        async with asyncio.timeout(_BODY_TIMEOUT_S):
            return await http.read_body(scope, receive, MAX_BODY_BYTES)
    except TimeoutError:
        raise RequestTimeoutError("The body did not arrive in time.") from None


def _target(scope: Scope) -> str:
    """The path as the client has sent it, escapes and all, without slashes that are empty or at the
    end; and the query."""
    path: bytes = scope.get("raw_path") or quote(scope["path"]).encode()
    query: bytes = scope.get("query_string", b"")
    target = "/" + "/".join(part for part in path.decode("latin-1").split("/") if part)
    return f"{target}?{query.decode('latin-1')}" if query else target
