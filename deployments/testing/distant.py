"""An account whose answers take a while, as those of Redis do: of tenants that are far from their
bounds, requests are under way meanwhile."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Final

from deployments.gateway.accounts import Book, LocalStore
from deployments.gateway.accounts.amounts import Ask, Reply, Spent
from deployments.gateway.accounts.known import Known

#: Longer than many an engine takes for its first token.
_LONGEST_S: Final = 0.02


class DistantStore(LocalStore):
    """Counts when it is asked, and answers later; so long after, what goes together is settled."""

    def __init__(self, now_ms: Callable[[], int], rng: random.Random) -> None:
        super().__init__(Book(now_ms))
        self._known = Known(now_ms)
        self._rng = rng
        self._kept: dict[str, list[Spent]] = {}

    def known(self, tenant: str) -> Known | None:
        return self._known

    async def reserve(self, ask: Ask) -> Reply:
        reply = self.book.reserve(ask)
        try:
            await asyncio.sleep(self._rng.uniform(0.0, _LONGEST_S))
        except asyncio.CancelledError:
            self.book.settle(ask.tenant, [Spent(hold.id) for hold in ask.holds])
            raise
        self._known.heard(ask, reply)
        return reply

    def settle(self, tenant: str, spent: Sequence[Spent], together: bool = False) -> None:
        if not together:
            self.book.settle(tenant, spent)
            return
        self._kept.setdefault(tenant, []).extend(spent)
        asyncio.get_running_loop().call_later(_LONGEST_S, self.hurry, tenant)

    def hurry(self, tenant: str) -> None:
        self.book.settle(tenant, self._kept.pop(tenant, []))
