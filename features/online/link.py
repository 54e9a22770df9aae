"""Keeps a connection to the store, and says at once when there is none.

A circuit breaker in the sense of Nygard, "Release It!" (2007): after a few look-ups without an
answer the connection is dropped, so that requests stop paying their time budget; a task in the
background, never a request, finds out when the store is back.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from features.online.address import SentinelAddress, StoreAddress
from features.online.connection import OnReply, RedisConnection, StoreFailedError
from features.online.discovery import open_connection, resolve

_LOG = logging.getLogger("weir.features")

StoreState = Literal["connecting", "up", "down"]


@dataclass(frozen=True, slots=True)
class Patience:
    """When to give up on the store, and when to try it again.

    ``failures``: look-ups in a row without an answer that open the breaker, if they came over at
    least ``silence_s``: a machine that is busy for a moment is no store that is down.
    ``probe_timeout_s``: a store that is slower to answer a PING is not worth asking. A pause
    doubles from ``backoff_min_s`` to ``backoff_max_s`` until a look-up is answered, and is
    shortened at random by up to half, so that many gateways do not come back together.
    """

    connect_timeout_s: float = 1.0
    probe_timeout_s: float = 0.05
    backoff_min_s: float = 0.05
    backoff_max_s: float = 2.0
    failures: int = 3
    silence_s: float = 0.05
    max_unanswered: int = 10_000


class StoreLink:
    """The connection that look-ups use, whichever it is at the moment. ``name``: what the store is
    called in the log."""

    def __init__(
        self,
        address: StoreAddress | SentinelAddress,
        patience: Patience | None = None,
        rng: random.Random | None = None,
        on_change: Callable[[StoreState], None] = lambda state: None,
        clock: Callable[[], float] = time.monotonic,
        name: str = "feature store",
    ) -> None:
        self._address = address
        self._name = name
        self._patience = patience or Patience()
        self._rng = rng or random.Random()
        self._on_change = on_change
        self._connection: RedisConnection | None = None
        self._task: asyncio.Task[None] | None = None
        self._up = asyncio.Event()
        self._clock = clock
        self._silent = 0
        self._silent_since_s = 0.0
        self._proven = False
        self.state: StoreState = "connecting"
        self.breaks = 0

    def start(self) -> None:
        """Begin to connect; look-ups find the store down until that has happened."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._keep_connected())

    async def close(self) -> None:
        """Stop for good."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        if self._connection is not None:
            self._connection.abort()
            self._connection = None

    async def wait_until_up(self) -> None:
        """For tests and tools; requests never wait for it."""
        await self._up.wait()

    @property
    def broken(self) -> bool:
        """Whether look-ups are refused at the moment."""
        return self._connection is None or self._connection.lost.done()

    @property
    def batches(self) -> int:
        """Writes on the present connection: look-ups of one turn of the loop share one."""
        return self._connection.batches if self._connection else 0

    def route(self, key: bytes) -> StoreLink:
        """The link that a key is read over: with one server, itself."""
        return self

    def moved(self, reply: str) -> StoreLink | None:
        """Where a cluster sends a reader instead; a link to one server knows no other."""
        if reply.startswith("MOVED "):
            self.distrust("the server belongs to a cluster, whose URL is redis+cluster://HOST:PORT")
        return None

    def send(self, command: bytes, on_reply: OnReply) -> bool:
        """Queue a command; False if the store is down or has too much to answer already."""
        connection = self._connection
        if connection is None or connection.lost.done():
            return False
        if connection.unanswered >= self._patience.max_unanswered:
            return False
        connection.send(command, on_reply)
        return True

    def answered(self) -> None:
        """A look-up had its answer: the store is well."""
        self._silent = 0
        self._proven = True

    def unanswered(self) -> None:
        """A look-up's time was over before an answer came."""
        now_s = self._clock()
        if self._silent == 0:
            self._silent_since_s = now_s
        self._silent += 1
        long_enough = now_s - self._silent_since_s >= self._patience.silence_s
        if self._silent >= self._patience.failures and long_enough:
            self.distrust(f"{self._silent} look-ups in a row without an answer")

    def distrust(self, why: str) -> None:
        """Drop the connection: what comes from it is late or wrong."""
        if self._connection is not None:
            _LOG.warning("%s: %s; reconnecting", self._name, why)
            self._connection.abort()

    async def _keep_connected(self) -> None:
        pause_s = self._patience.backoff_min_s
        while True:
            try:
                connection = await self._open()
            except (OSError, TimeoutError, StoreFailedError) as error:
                if self.state != "down":
                    told = error or "no answer in time"
                    _LOG.warning("%s: not reachable: %s", self._name, told)
                self._tell("down")
            else:
                await self._serve(connection)
                if self._proven:
                    pause_s = self._patience.backoff_min_s
            await asyncio.sleep(pause_s * self._rng.uniform(0.5, 1.0))
            pause_s = min(2 * pause_s, self._patience.backoff_max_s)

    async def _open(self) -> RedisConnection:
        patience = self._patience
        address = await resolve(self._address, patience.connect_timeout_s)
        connection = await open_connection(address, patience.connect_timeout_s)
        try:
            async with asyncio.timeout(patience.probe_timeout_s):
                if await connection.call(b"PING") not in (b"PONG", "PONG"):
                    raise StoreFailedError("PING: not a Redis")
        except BaseException:
            connection.abort()
            raise
        return connection

    async def _serve(self, connection: RedisConnection) -> None:
        self._silent, self._proven = 0, False
        self._connection = connection
        self._up.set()
        self._tell("up")
        try:
            await connection.lost
        finally:
            self._connection = None
            self._up.clear()
            connection.abort()
        self.breaks += 1
        self._tell("down")

    def _tell(self, state: StoreState) -> None:
        if state != self.state:
            self.state = state
            self._on_change(state)
