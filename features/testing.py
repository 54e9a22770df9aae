"""Fakes for tests of this room: a store that does what the test says, over a real socket."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable

import hiredis

from features.online import FeatureSpec, Patience, ServicePlan, ServiceSpec, ViewSpec
from features.online.format import hash_key, timestamp_field, value_field

PLAN = ServicePlan(ServiceSpec("s", (ViewSpec("v", (FeatureSpec("name", default="nobody"),)),)))
EAGER = Patience(backoff_min_s=0.001, backoff_max_s=0.01, connect_timeout_s=5, probe_timeout_s=5)
LONG_S = 60.0
"""A budget that is never used up, however busy the machine."""


class FakeRedis:
    """Answers HMGET from ``hashes`` and PING; ``answer`` replaces the reply to HMGET."""

    def __init__(self) -> None:
        self.hashes: dict[bytes, dict[bytes, bytes]] = {}
        self.commands: list[bytes] = []
        self.connections = 0
        self.answer: Callable[[], bytes | None] | None = None
        self.writers: list[asyncio.StreamWriter] = []
        self._server: asyncio.Server | None = None
        self.port = 0

    def put(self, entity: str, name: str) -> None:
        """Write the one feature of ``PLAN``, with event time 1 s after the epoch."""
        self.hashes[hash_key(entity)] = {
            timestamp_field("v"): b"\x08\x01",
            value_field("v", "name"): b"\x12" + bytes([len(name)]) + name.encode(),
        }

    async def start(self, tls: ssl.SSLContext | None = None) -> None:
        """Listen on a free port, or again on the one that it had."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=tls)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Hang up on everybody."""
        assert self._server is not None
        self._server.close()
        for writer in self.writers:
            writer.transport.abort()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.writers.append(writer)
        parser = hiredis.Reader()
        try:
            while data := await reader.read(65536):
                parser.feed(data)
                while (words := parser.gets()) is not False:
                    if (reply := self._reply(words)) is not None:
                        writer.write(reply)
        except ConnectionError:
            pass
        finally:
            writer.close()

    def _reply(self, words: list[bytes]) -> bytes | None:
        self.commands.append(words[0])
        if words[0] == b"PING":
            return b"+PONG\r\n"
        if words[0] != b"HMGET":
            return b"+OK\r\n"
        if self.answer is not None:
            return self.answer()
        return hmget(self.hashes.get(words[1], {}), words[2:])

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def reads(self) -> int:
        """How many look-ups arrived."""
        return self.commands.count(b"HMGET")


def hmget(held: dict[bytes, bytes], fields: list[bytes]) -> bytes:
    """Redis' reply."""
    cells = [held.get(field) for field in fields]
    parts = [b"$-1\r\n" if c is None else b"$%d\r\n%b\r\n" % (len(c), c) for c in cells]
    return b"*%d\r\n" % len(parts) + b"".join(parts)


class Times:
    """A clock that stands still until told."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        """Seconds."""
        return self.now_s


async def until(condition: Callable[[], object]) -> None:
    """Let the loop run until something is so."""
    while not condition():  # noqa: ASYNC110 - whatever is waited for has no event of its own
        await asyncio.sleep(0.001)
