"""Bodies are received and checked within bounds of memory and time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from deployments.gateway.bodies import CompletionBody, TextBody
from deployments.gateway.bodies.unknown import Unknown
from deployments.gateway.body_room import BodyRoom, announced_bytes
from deployments.gateway.dialects import Dialect
from deployments.gateway.off_loop import OffLoop
from deployments.gateway.plan import Limits
from deployments.gateway.request import Door
from weir.errors import BadRequestError, RequestTimeoutError, WeirError, forget_frames
from weir.tenancy import Tenant

#: Smaller bodies are checked within two milliseconds, whatever is in them.
PARSED_INLINE_BELOW = 16 * 1024


class Intake:
    """From a door to a body that is read and checked."""

    def __init__(self, limits: Limits, off_loop: OffLoop) -> None:
        self._limits = limits
        self.off_loop = off_loop
        self.room = BodyRoom()

    def unknown(self) -> Unknown:
        """For the names of a body's unknown fields."""
        return Unknown(self._limits.refuse_unknown_fields)

    async def body(
        self, dialect: Dialect, tenant: Tenant, door: Door, unknown: Unknown
    ) -> tuple[Any, int]:
        """The body, and its length in bytes. ``unknown`` is told of unknown fields.

        Raises:
            WeirError: it does not come in time, is too large, or is not what the dialect takes; or
                too many large ones are under way.
            ClientGoneError: the client left before its end.
        """
        most = self._limits.max_body_bytes
        held = self.room.take(tenant.id, announced_bytes(door, most))
        raw = b""
        try:
            raw = await self._read(tenant.id, door, most)
            body = await self.parse(dialect, tenant, raw, unknown)
            _check_streams(body, self._limits.max_streams)
            return body, len(raw)
        except WeirError as error:
            # Who is refused may be kept waiting for it, and the error's frames as long.
            raw = b""
            forget_frames(error)
            raise
        finally:
            self.room.give_back(tenant.id, held)

    @asynccontextmanager
    async def received(self, tenant: str, door: Door, max_bytes: int) -> AsyncIterator[bytes]:
        """The body of a page, as bytes; room is held for it while the context lasts.

        Raises:
            WeirError, ClientGoneError: as in :meth:`body`.
        """
        held = self.room.take(tenant, announced_bytes(door, max_bytes))
        try:
            yield await self._read(tenant, door, max_bytes)
        finally:
            self.room.give_back(tenant, held)

    async def parse(self, dialect: Dialect, tenant: Tenant, raw: bytes, unknown: Unknown) -> Any:
        """The body, checked; a large one beside the loop.

        Raises:
            WeirError: what the dialect raises, or too many large bodies are being read.
        """
        if len(raw) < PARSED_INLINE_BELOW:
            return dialect.parse(raw, unknown)
        return await self.off_loop.run(tenant.id, len(raw), lambda: dialect.parse(raw, unknown))

    async def _read(self, tenant: str, door: Door, max_bytes: int) -> bytes:
        limit_s, run = self._limits.body_timeout_s, self.off_loop.run
        try:
            async with asyncio.timeout(limit_s):
                return await door.read(
                    max_bytes, lambda size, function: run(tenant, size, function)
                )
        except TimeoutError:
            raise RequestTimeoutError(f"The body was not complete after {limit_s:g} s.") from None


def _check_streams(body: Any, most: int) -> None:
    if not isinstance(body, TextBody):
        return
    prompts = len(body.prompts()) if isinstance(body, CompletionBody) else 1
    if prompts * body.n <= most:
        return
    field, told = "n", f"{prompts} prompts times {body.n} choices"
    if body.n == 1:
        field, told = "prompt", f"{prompts} prompts"
    elif prompts == 1:
        told = f"{body.n} choices"
    raise BadRequestError(f"{field}: {told}; at most {most} are accepted.", param=field)
