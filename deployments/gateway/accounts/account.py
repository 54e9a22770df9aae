"""What gateways' requests reserve and use, tenant by tenant."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from deployments.gateway.accounts.amounts import (
    Amount,
    Ask,
    Code,
    Hold,
    Reply,
    Scope,
    Spending,
    scopes_of,
)
from deployments.gateway.accounts.later import Later
from deployments.gateway.accounts.store import Store
from deployments.gateway.accounts.tab import Charge, Most, Tab
from weir.accounts import DAY_MS, month_of
from weir.tenancy import NO_QUOTAS, Key, Tenant


class Account:
    """Keeps tenants within what they may use. ``now_ms``: milliseconds since the epoch."""

    def __init__(self, store: Store, now_ms: Callable[[], int]) -> None:
        self.store = store
        self._now_ms = now_ms
        self._ids = itertools.count(1)
        self._scopes: dict[tuple[str, str, str], tuple[Tenant, Key | None, tuple[Scope, ...]]] = {}
        self._spending: dict[str, tuple[Tenant, Spending | None]] = {}
        self._spent: dict[str, tuple[int, int]] = {}
        #: Attempts that are under way and not reserved yet, by tenant.
        self._following: dict[str, int] = {}

    def open(
        self, tenant: Tenant, key: Key | None = None, later: Later | None = None
    ) -> Tab | None:
        """For one request. None: nothing is bounded, and nobody has to be asked."""
        if (
            tenant.budget is None
            and (tenant.quotas is NO_QUOTAS or tenant.quotas.unlimited)
            and not tenant.model_quotas
            and (key is None or key.quotas is NO_QUOTAS or key.quotas.unlimited)
        ):
            return None
        return Tab(self, tenant, key, later)

    def scopes(self, tenant: Tenant, key: Key | None, model: str) -> tuple[Scope, ...]:
        """The scopes in which a use of the model counts."""
        name = (tenant.id, key.id if key is not None else "", model)
        known = self._scopes.get(name)
        if known is not None and known[0] is tenant and known[1] is key:
            return known[2]
        made = scopes_of(tenant, key, model)
        self._scopes[name] = (tenant, key, made)
        return made

    def spending(self, tenant: Tenant) -> Spending | None:
        """The tenant's budget."""
        known = self._spending.get(tenant.id)
        if known is not None and known[0] is tenant:
            return known[1]
        made = Spending.of(tenant.budget) if tenant.budget is not None else None
        self._spending[tenant.id] = (tenant, made)
        return made

    def ample(self, tenant: Tenant, key: Key | None, most: Most, spending: Spending | None) -> bool:
        """See :meth:`Tab.ample`."""
        known = self.store.known(tenant.id)
        if known is None:
            return False
        scopes = self.scopes(tenant, key, most.model)
        steps: tuple[int, ...] = ()
        if spending is not None:
            steps = spending.stopping if most.may_spill else spending.refusing
        waiting = self._following.get(tenant.id, 0)
        return known.ample(tenant.id, scopes, most.used, most.nano_usd, steps, waiting)

    def follow(self, tenant: str, work: Coroutine[Any, Any, Charge]) -> asyncio.Task[Charge]:
        """Reserve in a task of its own."""
        self._following[tenant] = self._following.get(tenant, 0) + 1
        task = asyncio.get_running_loop().create_task(work)
        task.add_done_callback(lambda _: self._followed(tenant))
        return task

    def _followed(self, tenant: str) -> None:
        self._following[tenant] -= 1
        if not self._following[tenant]:
            del self._following[tenant]

    def hold(self, nano_usd: int, amounts: Iterable[tuple[str, Amount]]) -> Hold:
        """A reservation to be asked for."""
        return Hold(next(self._ids), nano_usd, tuple(amounts))

    async def ask(self, ask: Ask) -> Reply:
        """See :class:`Store`."""
        reply = await self.store.reserve(ask)
        if ask.spending is not None and reply.code != Code.AWAY:
            self._spent[ask.tenant] = (month_of(reply.now_ms // DAY_MS), reply.spent_nano_usd)
        return reply

    def known_spent(self, tenant: str) -> int:
        """Nano-USD spent and reserved this month, as was heard last."""
        month, spent = self._spent.get(tenant, (0, 0))
        return spent if month == month_of(self._now_ms() // DAY_MS) else 0
