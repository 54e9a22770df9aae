"""Single commands to a Redis, alone or a cluster, over a link that is made when first used."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from hiredis import ReplyError

from features.online import ClusterAddress, ClusterLink, SentinelAddress, StoreAddress, StoreLink
from features.online.connection import encode
from weir.errors import OverloadedError

PATIENCE_S = 2.0
Links = StoreLink | ClusterLink


class RedisAway(OverloadedError):  # noqa: N818 - as the others of its family
    """It does not answer now."""

    code = "redis_away"


class Redis:
    """``name``: what its errors call it."""

    def __init__(self, address: StoreAddress | SentinelAddress | ClusterAddress, name: str) -> None:
        self._address = address
        self._name = name
        self._links: Links | None = None

    async def links(self) -> Links:
        """The link or links, up.

        Raises:
            RedisAway: they do not come up in time.
        """
        if self._links is None:
            address = self._address
            self._links = (
                ClusterLink(address) if isinstance(address, ClusterAddress) else StoreLink(address)
            )
            self._links.start()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE_S):
                await self._links.wait_until_up()
                return self._links
        raise self.away()

    async def ask(self, command: bytes, key: bytes, *words: bytes) -> Any:
        """The reply to a command about one key, none of whose replies is nil.

        Raises:
            RedisAway: there is none, or an error.
        """
        links = await self.links()
        link: StoreLink | None = links.route(key)
        for _ in range(2):
            if link is None:
                break
            reply = await self._reply(link, encode(command, key, *words))
            if not isinstance(reply, ReplyError):
                return reply
            link = links.moved(str(reply))
        raise self.away()

    def away(self) -> RedisAway:
        """The error."""
        return RedisAway(f"{self._name} does not answer now.", retry_after_s=1.0)

    async def close(self) -> None:
        """Disconnect."""
        if self._links is not None:
            await self._links.close()

    async def _reply(self, link: StoreLink, command: bytes) -> Any:
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        def on_reply(reply: Any) -> None:
            if not answer.done():
                answer.set_result(reply)

        if not link.send(command, on_reply):
            raise self.away()
        try:
            async with asyncio.timeout(PATIENCE_S):
                reply = await answer
        except TimeoutError:
            raise self.away() from None
        if reply is None:  # the connection broke
            raise self.away()
        return reply
