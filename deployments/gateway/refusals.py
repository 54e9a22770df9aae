"""Refusals cost their sender time.

A refusal costs its sender a few bytes, and the gateway nearly as much as the beginning of an
answer. A client that sends again what was refused, as fast as it is refused, takes a good part of a
core from everybody's streams. So a tenant is refused so many requests a second at once; the answers
to further ones wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from deployments.gateway.plan import RefusalLimits
from deployments.gateway.record import Record
from deployments.gateway.request import Door
from weir.errors import WeirError

#: A refused body of this size or more is not kept waiting: it would take memory. Reading such
#: bodies has bounds of its own (:mod:`deployments.gateway.off_loop`).
_LARGE_BYTES = 64 * 1024


class Refusals:
    """Counts refusals by tenant. Needs a running event loop: its clock is the only one."""

    def __init__(self, limits: RefusalLimits | None = None) -> None:
        self._limits = limits or RefusalLimits()
        self._clock = asyncio.get_running_loop().time
        self._paid_s: dict[str, float] = {}  # until when a tenant's refusals take up their share
        self.waiting = 0

    async def pause(self, record: Record, door: Door, error: WeirError) -> None:
        """Wait until the client of a request may be told that it is refused, or has left. What is
        no fault of the client's, and what comes from a batch, does not wait."""
        if error.status >= 500 or _keeps_memory(record) or door.batch is not None:
            return
        await self.pause_for(record.tenant, door.discard)

    async def pause_for(self, tenant: str, discard: Callable[[], Awaitable[None]]) -> None:
        """The same for a client of the tenant ("" where nobody knows whose it is). ``discard``
        returns when the client has left."""
        pause_s = self._due_s(tenant)
        if pause_s <= 0.0 or self.waiting >= self._limits.places:
            return
        self.waiting += 1
        try:
            async with asyncio.timeout(pause_s):
                # Serve reads on, whether or not anybody takes it, and would keep it all.
                await discard()
        except TimeoutError:
            pass
        finally:
            self.waiting -= 1

    def _due_s(self, tenant: str) -> float:
        """How long one more refusal has to wait (the generic cell rate algorithm, ITU-T I.371)."""
        limits, now_s = self._limits, self._clock()
        free_s = limits.at_once / limits.per_s
        paid_s = max(self._paid_s.get(tenant, 0.0), now_s) + 1.0 / limits.per_s
        # Refusals that could not wait longer are not owed for ever.
        self._paid_s[tenant] = min(paid_s, now_s + free_s + limits.longest_s)
        return min(paid_s - now_s - free_s, limits.longest_s)


def _keeps_memory(record: Record) -> bool:
    return record.request is not None and record.request.body_bytes >= _LARGE_BYTES
