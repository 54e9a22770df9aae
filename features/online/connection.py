"""One connection to Redis: commands go out in batches, replies come back in order.

An ``asyncio.Protocol`` around hiredis' parser instead of redis-py's client: with one HMGET per
request, the client's own Python is most of the time that a look-up takes.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, cast

import hiredis

from features.online.address import StoreAddress

OnReply = Callable[[Any], None]
"""Given a reply, or None when the connection broke before one came. Must not raise."""


class StoreFailedError(Exception):
    """The store refused a command of the handshake, or went away during it."""


class RedisConnection(asyncio.Protocol):
    """Commands written within one turn of the event loop leave in one write.

    ``lost`` completes when the connection is gone. Replies in flight are then answered with None;
    anything that is no Redis reply, or one reply too many, ends the connection.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader()
        self._waiting: deque[OnReply] = deque()
        self._outbox: list[bytes] = []
        self._transport: asyncio.Transport | None = None
        self.lost: asyncio.Future[None] = self._loop.create_future()
        self.batches = 0

    @property
    def unanswered(self) -> int:
        """Commands that were sent and have no reply yet."""
        return len(self._waiting)

    def send(self, command: bytes, on_reply: OnReply) -> None:
        """Queue an encoded command; it leaves at the end of this turn of the loop."""
        if self.lost.done():
            on_reply(None)
            return
        if not self._outbox:
            self._loop.call_soon(self._flush)
        self._outbox.append(command)
        self._waiting.append(on_reply)

    async def call(self, *words: bytes) -> Any:
        """One command of the handshake and its reply.

        Raises:
            StoreFailedError: an error reply, or the connection broke.
        """
        answer: asyncio.Future[Any] = self._loop.create_future()

        def on_reply(reply: Any) -> None:
            if not answer.done():
                answer.set_result(reply)

        self.send(encode(*words), on_reply)
        reply = await answer
        if reply is None or isinstance(reply, hiredis.ReplyError):
            raise StoreFailedError(f"{words[0].decode()}: {reply or 'connection lost'}")
        return reply

    def abort(self) -> None:
        """Drop the connection at once."""
        if self._transport is not None:
            self._transport.abort()
        self._give_up()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are none of asyncio's classes, but of their shape.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        try:
            self._reader.feed(data)
            while (reply := self._reader.gets()) is not False:
                self._waiting.popleft()(reply)
        except (hiredis.ProtocolError, IndexError):  # no reply, or one that nobody asked for
            self.abort()

    def connection_lost(self, error: Exception | None) -> None:
        self._give_up()

    def _flush(self) -> None:
        if self._transport is not None and not self.lost.done():
            self._transport.write(b"".join(self._outbox))
            self.batches += 1
        self._outbox.clear()

    def _give_up(self) -> None:
        if not self.lost.done():
            self.lost.set_result(None)
        while self._waiting:
            self._waiting.popleft()(None)


def encode(*words: bytes) -> bytes:
    """A command in Redis' protocol."""
    parts = b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)
    return b"*%d\r\n%b" % (len(words), parts)


async def connect(address: StoreAddress) -> RedisConnection:
    """A connection, before its greeting.

    Raises:
        OSError: nobody answers there.
    """
    loop = asyncio.get_running_loop()
    if address.path is not None:
        _, connection = await loop.create_unix_connection(RedisConnection, address.path)
    else:
        _, connection = await loop.create_connection(
            RedisConnection,
            address.host,
            address.port,
            ssl=address.tls,
            server_hostname=address.host if address.tls else None,
        )
    return connection
