"""The boards of all gateways (:mod:`deployments.live`), read for who looks at ``/dashboard``."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence

import msgspec

from deployments import live
from deployments.control import asking
from deployments.control.asking import RedisAway
from deployments.gateway.feature_store import platform_redis_url
from deployments.live import Board
from features.online import parse_address
from weir.settings import Settings

#: Several who look at once share what was read so long ago.
_FRESH_S = 0.9


class Boards:
    """Connected when it is first asked. ``now_s``: seconds since the epoch; ``clock``: seconds, to
    tell how old what was read is."""

    def __init__(
        self,
        settings: Settings,
        environment: Mapping[str, str],
        now_s: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Raises:
        ConfigError: the URL of the platform's Redis cannot be used.
        """
        url = platform_redis_url(settings, environment)
        self._redis = asking.Redis(parse_address(url, setting="redis.url"), "Redis")
        self._now_s = now_s
        self._clock = clock
        self._reading = asyncio.Lock()
        self._read: tuple[Board, ...] | RedisAway = ()
        self._read_s = float("-inf")

    async def read(self) -> Sequence[Board]:
        """What each gateway has told last. Empty for a second after nobody has looked for a while.

        Raises:
            RedisAway: it cannot be found out now.
        """
        async with self._reading:
            if self._clock() - self._read_s >= _FRESH_S:
                try:
                    self._read = tuple(await self._ask())
                except RedisAway as away:
                    self._read = away  # whoever has waited meanwhile need not wait as long again
                self._read_s = self._clock()
        if isinstance(self._read, RedisAway):
            raise self._read
        return self._read

    async def close(self) -> None:
        """Disconnect."""
        await self._redis.close()

    async def _ask(self) -> list[Board]:
        until = b"%d" % live.WATCHED_S
        await self._redis.ask(b"SET", live.WATCHED.encode(), b"1", b"EX", until)
        words = await self._redis.ask(b"HGETALL", live.BOARDS.encode())
        oldest_ms = int(self._now_s() * 1000) - live.STALE_MS
        boards = [board for written in words[1::2] if (board := _board(written)) is not None]
        fresh = [board for board in boards if board.at_ms >= oldest_ms]
        return sorted(fresh, key=lambda board: board.gateway)  # a hash has no order


def _board(written: bytes) -> Board | None:
    """None: a gateway of another version has written it."""
    try:
        return live.decode(written)
    except msgspec.MsgspecError:
        return None
