"""What a gateway allows by itself while Redis does not answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from deployments.gateway.accounts.amounts import (
    UNBOUNDED,
    Ask,
    Code,
    Reply,
    Scope,
    Spending,
    Spent,
    Step,
)
from deployments.gateway.accounts.book import Book, clears_ms
from deployments.gateway.accounts.known import Known

_CONCURRENT = 6


class Allowance:
    """Of each bound of a tenant a ``share``, beside nothing that is ``known`` to be used up.

    With *g* gateways a bound may so be exceeded by *g* times ``share`` of it, never by more; of
    requests, each gateway allows at least one. What a tenant has used of it counts until
    :meth:`forget`: then Redis has been told.
    """

    def __init__(self, share: float, known: Known, now_ms: Callable[[], int]) -> None:
        self._share = share
        self._now_ms = now_ms
        self._book = Book(now_ms)
        self._known = known

    def reserve(self, ask: Ask) -> Reply:
        """Reserve everything or nothing."""
        scopes = tuple(self._scaled(ask.tenant, scope) for scope in ask.scopes)
        spent = self._known.spent_nano_usd(ask.tenant)
        spending = self._allowed(ask.spending, spent)
        if ask.may_spill and ask.spending is not None:
            would = spent + self._book.spent_nano_usd(ask.tenant) + ask.nano_usd
            if any(step.spill and would > step.nano_usd for step in ask.spending.steps):
                return self._refused(ask, Code.SPILLED, spent)
        reply = self._book.reserve(replace(ask, scopes=scopes, spending=spending, may_spill=False))
        if reply.code == Code.GRANTED:
            return replace(reply, counted=(), spent_nano_usd=spent + reply.spent_nano_usd)
        if reply.code == Code.BUDGET:
            assert ask.spending is not None
            over = [s for s in ask.spending.steps if s.refuse and spent + ask.nano_usd > s.nano_usd]
            return self._refused(ask, Code.BUDGET if over else Code.AWAY, spent)
        scope = ask.scopes[reply.scope]
        most = scope.bounds[reply.bound]
        used = self._used(ask.tenant, scope, reply.bound)
        amount = ask.of(scope.name)
        needs = amount.concurrent if reply.bound == _CONCURRENT else amount[reply.bound % 3]
        if used + needs > most:
            wait_ms = reply.wait_ms if needs > most else clears_ms(reply.bound, reply.now_ms)
            return replace(reply, wait_ms=wait_ms, counted=())
        return self._refused(ask, Code.AWAY, spent)

    def settle(self, tenant: str, spent: Spent) -> None:
        """See :class:`Book`."""
        self._book.settle(tenant, (spent,))

    def forget(self, tenant: str) -> None:
        """Redis knows what the tenant has used."""
        self._book.forget(tenant)

    def _scaled(self, tenant: str, scope: Scope) -> Scope:
        bounds = []
        for bound, most in enumerate(scope.bounds):
            if most < 0:
                bounds.append(UNBOUNDED)
                continue
            least = 1 if bound in (0, 3, _CONCURRENT) else 0
            allowed = min(most, max(least, int(most * self._share)))
            used = self._used(tenant, scope, bound)
            bounds.append(max(0, min(allowed, most - used)))
        return replace(scope, bounds=tuple(bounds))

    def _used(self, tenant: str, scope: Scope, bound: int) -> int:
        """What is known to count against a bound now. Of what ran at the same time, nothing is:
        it may have ended since."""
        return 0 if bound == _CONCURRENT else self._known.used(tenant, scope.name, bound)

    def _allowed(self, spending: Spending | None, spent: int) -> Spending | None:
        """A budget that nothing refuses has no bound."""
        edge = (
            min((s.nano_usd for s in spending.steps if s.refuse), default=None)
            if spending
            else None
        )
        if spending is None or edge is None:
            return None
        allowed = min(int(spending.nano_usd * self._share), edge - spent)
        return replace(spending, steps=(Step(100, max(0, allowed), refuse=True),))

    def _refused(self, ask: Ask, code: int, spent: int) -> Reply:
        return Reply(code, -1, -1, 0, self._now_ms(), spent, ())
