"""The door to a tenant's quotas and budget: what a request may use is reserved before it runs, and
replaced by what it used when it is over.

A request's first reservation has two parts. One is the request itself, which counts once and takes
a place among the concurrent ones until its end, however many models are tried. The other, and every
further reservation, is for one attempt: all its choices by one model, at that model's price. An
attempt that nobody has seen anything of is given back before the next one is made.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from deployments.gateway.accounts.amounts import Amount, Ask, Code, Hold, Reply, Scope, Spent
from deployments.gateway.accounts.errors import refusal_of
from deployments.gateway.accounts.headers import Pairs, budget_headers, quota_headers
from deployments.gateway.accounts.later import Later
from weir.cost import Used
from weir.tenancy import Key, Tenant

if TYPE_CHECKING:
    from deployments.gateway.accounts.account import Account


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
    used. ``place``: that among concurrent requests, where it is held apart."""

    tab: Tab
    hold: Hold
    open: bool
    place: Hold | None = None

    def give_back(self) -> None:
        """Nothing is to be paid for."""
        self.tab.give_back(self)


class Tab:
    """One request of a tenant with quotas or a budget. ``later``: who says whether it counts, where
    that is not known at its end; its places among concurrent requests are then held apart from
    what it may use."""

    def __init__(
        self, account: Account, tenant: Tenant, key: Key | None, later: Later | None = None
    ) -> None:
        self._account = account
        self._tenant = tenant
        self._key = key
        self._spending = account.spending(tenant)
        self._counts_later = later
        self._slot: Hold | None = None
        self._place: Hold | None = None
        self._charges: list[Charge] = []
        self._scopes: tuple[Scope, ...] = ()
        self._reply: Reply | None = None
        self._pairs: dict[str, Pairs] = {}
        self._far = False

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

    def ample(self, most: Most) -> bool:
        """Whether the tenant is so far from all its bounds that the attempt may begin before it is
        reserved (:meth:`reserve_soon`)."""
        return self._account.ample(self._tenant, self._key, most, self._spending)

    def reserve_soon(self, most: Most) -> asyncio.Task[Charge]:
        """:meth:`reserve`, once what is on its way to a replica in this turn of the loop has been
        sent."""
        self._far = True
        return self._account.follow(self._tenant.id, self._soon(most))

    async def _soon(self, most: Most) -> Charge:
        await asyncio.sleep(0)
        return await self._reserve(most)

    async def reserve(self, most: Most) -> Charge:
        """Reserve an attempt.

        Raises:
            RateLimitError: it is over a quota.
            InsufficientQuotaError: it is over the budget.
            BudgetSpillError: another model is to answer it.
            AccountAwayError: nobody can tell, and what is allowed meanwhile is used up.
        """
        self._far = False
        self._account.store.hurry(self._tenant.id)
        return await self._reserve(most)

    async def _reserve(self, most: Most) -> Charge:
        scopes = self._account.scopes(self._tenant, self._key, most.model)
        attempt = self._attempt(scopes, most)
        new = self._slot is None
        slot = self._slot or self._account.hold(
            0, ((s.name, Amount(1, concurrent=self._inside)) for s in scopes if not s.of_model)
        )
        place = self._held_apart(scopes, of_model=False) if new else None
        own_place = self._held_apart(scopes, of_model=True)
        asked = bool(scopes) or self._spending is not None
        if asked:
            made = (slot if new and slot.amounts else None, attempt, place, own_place)
            holds = tuple(hold for hold in made if hold is not None)
            await self._ask(Ask(self._tenant.id, scopes, holds, self._spending, most.may_spill))
        if new:
            self._slot, self._place = slot, place
        charge = Charge(self, attempt, asked, own_place)
        self._charges.append(charge)
        return charge

    @property
    def _inside(self) -> int:
        """Places among concurrent requests that belong to what is settled with the rest."""
        return int(self._counts_later is None)

    def _held_apart(self, scopes: Sequence[Scope], of_model: bool) -> Hold | None:
        names = [s.name for s in scopes if s.of_model is of_model] if self._counts_later else []
        amounts = ((name, Amount(concurrent=1)) for name in names)
        return self._account.hold(0, amounts) if names else None

    def _attempt(self, scopes: Sequence[Scope], most: Most) -> Hold:
        """A model's own scope counts attempts; the others count the request, once."""
        prompt, output = most.used.prompt_tokens, most.used.output_tokens
        amounts = (
            (s.name, Amount(int(s.of_model), prompt, output, self._inside if s.of_model else 0))
            for s in scopes
        )
        return self._account.hold(most.nano_usd if self._spending is not None else 0, amounts)

    async def _ask(self, ask: Ask) -> None:
        reply = await self._account.ask(ask)
        self._scopes, self._reply, self._pairs = ask.scopes, reply, {}
        if reply.code != Code.GRANTED:
            raise refusal_of(ask, reply)

    def give_back(self, charge: Charge) -> None:
        """An attempt is the platform's loss."""
        if charge.open:
            charge.open = False
            self._settle([Spent(charge.hold.id), *_left(charge.place)])

    def close(self, paid: Iterable[tuple[Charge, Used, int]], counts: bool) -> None:
        """The request is over. ``paid``: what was used of each attempt that is paid for, and its
        price in nano-USD; the others are given back. ``counts``: whether it is one of the requests
        that the tenant has made."""
        spent: list[Spent] = []
        free = _left(self._place)
        for charge, used, nano_usd in paid:
            if charge.open:
                charge.open = False
                spent.append(_spent(charge.hold, used, nano_usd))
                free += _left(charge.place)
        for charge in self._charges:
            if charge.open:
                charge.open = False
                spent.append(Spent(charge.hold.id))
                free += _left(charge.place)
        if self._slot is not None and self._slot.amounts:
            made = tuple((name, Amount(int(counts))) for name, _ in self._slot.amounts)
            spent.append(Spent(self._slot.id, 0, made if counts else ()))
            self._slot = replace(self._slot, amounts=())
        self._place = None
        if self._counts_later is None:
            self._settle(spent)
            return
        self._settle(free)
        self._counts_later.keep(
            lambda counted: self._settle(spent if counted else [Spent(each.id) for each in spent])
        )

    def _settle(self, spent: Sequence[Spent]) -> None:
        if spent:
            # Whose bounds are far has time: its settlements go together. But a line of a batch that
            # has its result is not computed again, so nobody else would settle it.
            together = self._far and self._counts_later is None
            self._account.store.settle(self._tenant.id, spent, together=together)

    def headers(self, family: str) -> Pairs:
        """What the client is told of its quotas and its budget; see :mod:`.headers`."""
        reply, pairs = self._reply, self._pairs.get(family)
        if reply is None:
            return []
        if pairs is None:
            pairs = quota_headers(family, self._scopes, reply)
            if self._spending is not None:
                pairs += budget_headers(self._spending, reply.spent_nano_usd)
            self._pairs[family] = pairs
        return pairs


def _left(place: Hold | None) -> list[Spent]:
    """A place among concurrent requests is free again."""
    return [Spent(place.id)] if place is not None else []


def _spent(hold: Hold, used: Used, nano_usd: int) -> Spent:
    amounts = tuple(
        (name, Amount(amount.requests, used.prompt_tokens, used.output_tokens))
        for name, amount in hold.amounts
    )
    return Spent(hold.id, nano_usd if hold.nano_usd else 0, amounts)
