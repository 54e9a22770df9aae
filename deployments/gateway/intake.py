"""Bodies are received and checked within bounds of memory and time."""

from __future__ import annotations

import asyncio
from typing import Any

from deployments.gateway.bodies import CompletionBody, TextBody
from deployments.gateway.bodies.unknown import Unknown
from deployments.gateway.body_room import BodyRoom, announced_bytes
from deployments.gateway.dialects import Dialect
from deployments.gateway.off_loop import OffLoop
from deployments.gateway.plan import Limits
from deployments.gateway.request import Door
from weir.errors import BadRequestError, RequestTimeoutError
from weir.tenancy import Tenant

#: Smaller bodies are checked within two milliseconds, whatever is in them.
PARSED_INLINE_BELOW = 16 * 1024


class Intake:
    """From a door to a body that is read and checked."""

    def __init__(self, limits: Limits, off_loop: OffLoop) -> None:
        self._limits = limits
        self._off_loop = off_loop
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
        size = announced_bytes(door, self._limits.max_body_bytes)
        held = self.room.take(tenant.id, size)
        try:
            raw = await self._read(door)
            body = await self.parse(dialect, tenant, raw, unknown)
            _check_streams(body, self._limits.max_streams)
            return body, len(raw)
        finally:
            self.room.give_back(tenant.id, held)

    async def parse(self, dialect: Dialect, tenant: Tenant, raw: bytes, unknown: Unknown) -> Any:
        """The body, checked; a large one beside the loop.

        Raises:
            WeirError: what the dialect raises, or too many large bodies are being read.
        """
        if len(raw) < PARSED_INLINE_BELOW:
            return dialect.parse(raw, unknown)
        return await self._off_loop.run(tenant.id, len(raw), lambda: dialect.parse(raw, unknown))

    async def _read(self, door: Door) -> bytes:
        limits = self._limits
        try:
            async with asyncio.timeout(limits.body_timeout_s):
                return await door.read(limits.max_body_bytes)
        except TimeoutError:
            raise RequestTimeoutError(
                f"The body was not complete after {limits.body_timeout_s:g} s."
            ) from None


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
