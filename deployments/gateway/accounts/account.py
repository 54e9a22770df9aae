"""The door to a tenant's quotas and budget: what a request may use is reserved before it runs, and
replaced by what it used when it is over.

A request's first reservation has two parts. One is the request itself, which counts once and takes
a place among the concurrent ones until its end, however many models are tried. The other, and every
further reservation, is for one attempt: all its choices by one model, at that model's price. An
attempt that nobody has seen anything of is given back before the next one is made.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from deployments.gateway.accounts.amounts import (
    Amount,
    Ask,
    Code,
    Hold,
    Reply,
    Scope,
    Spending,
    Spent,
    scopes_of,
)
from deployments.gateway.accounts.book import Book
from deployments.gateway.accounts.errors import refusal_of
from deployments.gateway.accounts.headers import Pairs, budget_headers, quota_headers
from weir.accounts import DAY_MS, month_of
from weir.cost import Used
from weir.tenancy import NO_QUOTAS, Key, Tenant


class Store(Protocol):
    """Where it is counted."""

    async def reserve(self, ask: Ask) -> Reply:
        """Reserve everything that is asked for, or nothing. Cancelled, it reserves nothing."""
        ...

    def settle(self, tenant: str, spent: Sequence[Spent]) -> None:
        """Replace reservations by what was used, soon, and once."""
        ...


class LocalStore:
    """Of a gateway that is alone: in its memory, exact, and forgotten with it."""

    def __init__(self, book: Book) -> None:
        self.book = book

    async def reserve(self, ask: Ask) -> Reply:
        return self.book.reserve(ask)

    def settle(self, tenant: str, spent: Sequence[Spent]) -> None:
        self.book.settle(tenant, spent)


@dataclass(frozen=True, slots=True)
class Most:
    """What an attempt may use at most, and what that costs in nano-USD."""

    model: str
    used: Used
    nano_usd: int
    may_spill: bool = False


@dataclass(slots=True)
class Charge:
    """An attempt's reservation. ``open``: there is one, and it has not been replaced by what was
    used."""

    tab: Tab
    hold: Hold
    open: bool

    def give_back(self) -> None:
        """Nothing is to be paid for."""
        self.tab.give_back(self)


class Tab:
    """One request of a tenant with quotas or a budget."""

    def __init__(self, account: Account, tenant: Tenant, key: Key | None) -> None:
        self._account = account
        self._tenant = tenant
        self._key = key
        self._spending = account.spending(tenant)
        self._slot: Hold | None = None
        self._charges: list[Charge] = []
        self._scopes: tuple[Scope, ...] = ()
        self._reply: Reply | None = None

    @property
    def spills(self) -> bool:
        """Whether so much of the budget is known to be spent that another model should answer."""
        if self._spending is None or not any(step.spill for step in self._spending.steps):
            return False
        spent = self._account.known_spent(self._tenant.id)
        return any(step.spill and spent >= step.nano_usd for step in self._spending.steps)

    def most_output_tokens(self, model: str) -> int | None:
        """The most that any answer of the model may have: more could never be reserved."""
        scopes = self._account.scopes(self._tenant, self._key, model)
        return min((s.output_tokens for s in scopes if s.output_tokens is not None), default=None)

    async def reserve(self, most: Most) -> Charge:
        """Reserve an attempt.

        Raises:
            RateLimitError: it is over a quota.
            InsufficientQuotaError: it is over the budget.
            BudgetSpillError: another model is to answer it.
            AccountAwayError: nobody can tell, and what is allowed meanwhile is used up.
        """
        scopes = self._account.scopes(self._tenant, self._key, most.model)
        attempt = self._attempt(scopes, most)
        slot = self._slot or self._account.hold(
            0, ((s.name, Amount(1, concurrent=1)) for s in scopes if not s.of_model)
        )
        new = self._slot is None and bool(slot.amounts)
        holds = (slot, attempt) if new else (attempt,)
        asked = bool(scopes) or self._spending is not None
        if asked:
            await self._ask(Ask(self._tenant.id, scopes, holds, self._spending, most.may_spill))
        self._slot = slot
        charge = Charge(self, attempt, asked)
        self._charges.append(charge)
        return charge

    def _attempt(self, scopes: Sequence[Scope], most: Most) -> Hold:
        """A model's own scope counts attempts; the others count the request, once."""
        prompt, output = most.used.prompt_tokens, most.used.output_tokens
        amounts = (
            (s.name, Amount(int(s.of_model), prompt, output, int(s.of_model))) for s in scopes
        )
        return self._account.hold(most.nano_usd if self._spending is not None else 0, amounts)

    async def _ask(self, ask: Ask) -> None:
        reply = await self._account.ask(ask)
        self._scopes, self._reply = ask.scopes, reply
        if reply.code != Code.GRANTED:
            raise refusal_of(ask, reply)

    def give_back(self, charge: Charge) -> None:
        """An attempt is the platform's loss."""
        if charge.open:
            charge.open = False
            self._account.settle(self._tenant.id, [Spent(charge.hold.id)])

    def close(self, paid: Iterable[tuple[Charge, Used, int]], counts: bool) -> None:
        """The request is over. ``paid``: what was used of each attempt that is paid for, and its
        price in nano-USD; the others are given back. ``counts``: whether it is one of the requests
        that the tenant has made."""
        spent: list[Spent] = []
        for charge, used, nano_usd in paid:
            if charge.open:
                charge.open = False
                spent.append(_spent(charge.hold, used, nano_usd))
        for charge in self._charges:
            if charge.open:
                charge.open = False
                spent.append(Spent(charge.hold.id))
        if self._slot is not None and self._slot.amounts:
            made = tuple((name, Amount(int(counts))) for name, _ in self._slot.amounts)
            spent.append(Spent(self._slot.id, 0, made if counts else ()))
            self._slot = replace(self._slot, amounts=())
        if spent:
            self._account.settle(self._tenant.id, spent)

    def headers(self, family: str) -> Pairs:
        """What the client is told of its quotas and its budget; see :mod:`.headers`."""
        reply = self._reply
        if reply is None:
            return []
        pairs = quota_headers(family, self._scopes, reply)
        if self._spending is not None:
            pairs += budget_headers(self._spending, reply.spent_nano_usd)
        return pairs


class Account:
    """Keeps tenants within what they may use. ``now_ms``: milliseconds since the epoch."""

    def __init__(self, store: Store, now_ms: Callable[[], int]) -> None:
        self.store = store
        self._now_ms = now_ms
        self._ids = itertools.count(1)
        self._scopes: dict[tuple[str, str, str], tuple[Tenant, Key | None, tuple[Scope, ...]]] = {}
        self._spending: dict[str, tuple[Tenant, Spending | None]] = {}
        self._spent: dict[str, tuple[int, int]] = {}

    def open(self, tenant: Tenant, key: Key | None = None) -> Tab | None:
        """For one request. None: nothing is bounded, and nobody has to be asked."""
        if (
            tenant.budget is None
            and (tenant.quotas is NO_QUOTAS or tenant.quotas.unlimited)
            and not tenant.model_quotas
            and (key is None or key.quotas is NO_QUOTAS or key.quotas.unlimited)
        ):
            return None
        return Tab(self, tenant, key)

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

    def hold(self, nano_usd: int, amounts: Iterable[tuple[str, Amount]]) -> Hold:
        """A reservation to be asked for."""
        return Hold(next(self._ids), nano_usd, tuple(amounts))

    async def ask(self, ask: Ask) -> Reply:
        """See :class:`Store`."""
        reply = await self.store.reserve(ask)
        if ask.spending is not None and reply.code != Code.AWAY:
            self._spent[ask.tenant] = (month_of(reply.now_ms // DAY_MS), reply.spent_nano_usd)
        return reply

    def settle(self, tenant: str, spent: Sequence[Spent]) -> None:
        """See :class:`Store`."""
        self.store.settle(tenant, spent)

    def known_spent(self, tenant: str) -> int:
        """Nano-USD spent and reserved this month, as was heard last."""
        month, spent = self._spent.get(tenant, (0, 0))
        return spent if month == month_of(self._now_ms() // DAY_MS) else 0


def _spent(hold: Hold, used: Used, nano_usd: int) -> Spent:
    amounts = tuple(
        (name, Amount(amount.requests, used.prompt_tokens, used.output_tokens))
        for name, amount in hold.amounts
    )
    return Spent(hold.id, nano_usd if hold.nano_usd else 0, amounts)


__all__ = ["Account", "Charge", "LocalStore", "Most", "Store", "Tab"]
