"""Bodies are received and checked within bounds of memory and time."""

from __future__ import annotations

import asyncio
from typing import Any

from deployments.gateway.body_room import BodyRoom, announced_bytes
from deployments.gateway.dialects import Dialect
from deployments.gateway.off_loop import OffLoop
from deployments.gateway.plan import Limits
from deployments.gateway.request import Door
from weir.errors import RequestTimeoutError
from weir.tenancy import Tenant

#: Smaller bodies are checked within two milliseconds, whatever is in them.
PARSED_INLINE_BELOW = 16 * 1024


class Intake:
    """From a door to a body that is read and checked."""

    def __init__(self, limits: Limits, off_loop: OffLoop) -> None:
        self._limits = limits
        self._off_loop = off_loop
        self.room = BodyRoom()

    async def body(self, dialect: Dialect, tenant: Tenant, door: Door) -> tuple[Any, int]:
        """The body, and its length in bytes.

        Raises:
            WeirError: it does not come in time, is too large, or is not what the dialect takes; or
                too many large ones are under way.
            ClientGoneError: the client left before its end.
        """
        size = announced_bytes(door, self._limits.max_body_bytes)
        held = self.room.take(tenant.id, size)
        try:
            raw = await self._read(door)
            return await self.parse(dialect, tenant, raw), len(raw)
        finally:
            self.room.give_back(tenant.id, held)

    async def parse(self, dialect: Dialect, tenant: Tenant, raw: bytes) -> Any:
        """The body, checked; a large one beside the loop.

        Raises:
            WeirError: what the dialect raises, or too many large bodies are being read.
        """
        if len(raw) < PARSED_INLINE_BELOW:
            return dialect.parse(raw)
        return await self._off_loop.run(tenant.id, len(raw), lambda: dialect.parse(raw))

    async def _read(self, door: Door) -> bytes:
        limits = self._limits
        try:
            async with asyncio.timeout(limits.body_timeout_s):
                return await door.read(limits.max_body_bytes)
        except TimeoutError:
            raise RequestTimeoutError(
                f"The body was not complete after {limits.body_timeout_s:g} s."
            ) from None
