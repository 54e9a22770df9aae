"""The account in this process's memory: of a gateway that is alone, and of one whose Redis is
away."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from deployments.gateway.accounts.amounts import (
    NEVER_MS,
    Amount,
    Ask,
    Code,
    Counted,
    Hold,
    Reply,
    Spending,
    Spent,
)
from weir.accounts import DAY_MS, MINUTE_MS, month_of


@dataclass(slots=True)
class _Scope:
    minute: int
    day: int
    minutely: list[int] = field(default_factory=lambda: [0, 0, 0])
    daily: list[int] = field(default_factory=lambda: [0, 0, 0])
    concurrent: int = 0

    def roll(self, now_ms: int) -> None:
        if self.minute < now_ms // MINUTE_MS:
            self.minute, self.minutely = now_ms // MINUTE_MS, [0, 0, 0]
        if self.day < now_ms // DAY_MS:
            self.day, self.daily = now_ms // DAY_MS, [0, 0, 0]

    def count(self, amount: Amount, sign: int, minute: int, day: int) -> None:
        for i, number in enumerate(amount[:3]):
            if minute == self.minute:
                self.minutely[i] += sign * number
            if day == self.day:
                self.daily[i] += sign * number

    def told(self) -> Counted:
        return Counted(
            self.minute,
            self.day,
            (self.minutely[0], self.minutely[1], self.minutely[2]),
            (self.daily[0], self.daily[1], self.daily[2]),
            self.concurrent,
        )


@dataclass(slots=True)
class _Tenant:
    month: int
    nano_usd: int = 0
    scopes: dict[str, _Scope] = field(default_factory=dict)
    #: Open reservations, with their month and each scope's minute and day.
    holds: dict[int, tuple[Hold, int, dict[str, tuple[int, int]]]] = field(default_factory=dict)


class Book:
    """Counts as the script does. ``now_ms``: milliseconds since the epoch."""

    def __init__(self, now_ms: Callable[[], int]) -> None:
        self._now_ms = now_ms
        self._tenants: dict[str, _Tenant] = {}

    def reserve(self, ask: Ask) -> Reply:
        """Reserve everything or nothing."""
        now_ms = self._now_ms()
        tenant = self._tenant(ask.tenant, now_ms)
        scopes = [self._scope(tenant, scope.name, now_ms) for scope in ask.scopes]
        code, scope, bound, wait_ms = _refusal(ask, scopes, now_ms)
        if code == Code.GRANTED and ask.spending is not None:
            code = _spends(ask, ask.spending, tenant.nano_usd + ask.nano_usd)
        if code == Code.GRANTED:
            for hold in ask.holds:
                self._hold(tenant, hold, now_ms)
        counted = tuple(each.told() for each in scopes)
        return Reply(code, scope, bound, wait_ms, now_ms, tenant.nano_usd, counted)

    def settle(self, tenant_id: str, spent: Iterable[Spent]) -> None:
        """Replace reservations by what was used; what is not reserved is left alone."""
        tenant = self._tenant(tenant_id, self._now_ms())
        for each in spent:
            if each.id not in tenant.holds:
                continue
            hold, month, windows = tenant.holds.pop(each.id)
            if month == tenant.month:
                tenant.nano_usd += each.nano_usd - hold.nano_usd
            for name, amount in hold.amounts:
                tenant.scopes[name].count(amount, -1, *windows[name])
                tenant.scopes[name].concurrent -= amount.concurrent
            for name, amount in each.amounts:
                tenant.scopes[name].count(amount, 1, *windows[name])

    def forget(self, tenant_id: str) -> None:
        """Everything of the tenant."""
        self._tenants.pop(tenant_id, None)

    def open_holds(self) -> int:
        """Reservations that nobody has settled."""
        return sum(len(tenant.holds) for tenant in self._tenants.values())

    def counted(self, tenant_id: str, scope: str) -> Counted:
        """What a scope of the tenant has used and reserved."""
        now_ms = self._now_ms()
        return self._scope(self._tenant(tenant_id, now_ms), scope, now_ms).told()

    def spent_nano_usd(self, tenant_id: str) -> int:
        """In this month, reservations included."""
        return self._tenant(tenant_id, self._now_ms()).nano_usd

    def _tenant(self, tenant_id: str, now_ms: int) -> _Tenant:
        month = month_of(now_ms // DAY_MS)
        tenant = self._tenants.get(tenant_id)
        if tenant is None:
            tenant = self._tenants[tenant_id] = _Tenant(month)
        if tenant.month < month:
            tenant.month, tenant.nano_usd = month, 0
        return tenant

    def _scope(self, tenant: _Tenant, name: str, now_ms: int) -> _Scope:
        scope = tenant.scopes.get(name)
        if scope is None:
            scope = tenant.scopes[name] = _Scope(now_ms // MINUTE_MS, now_ms // DAY_MS)
        scope.roll(now_ms)
        return scope

    def _hold(self, tenant: _Tenant, hold: Hold, now_ms: int) -> None:
        tenant.nano_usd += hold.nano_usd
        windows = {}
        for name, amount in hold.amounts:
            scope = self._scope(tenant, name, now_ms)
            scope.count(amount, 1, scope.minute, scope.day)
            scope.concurrent += amount.concurrent
            windows[name] = (scope.minute, scope.day)
        tenant.holds[hold.id] = (hold, tenant.month, windows)


def _refusal(ask: Ask, scopes: list[_Scope], now_ms: int) -> tuple[int, int, int, int]:
    """The code; and the scope and the bound that take longest until they allow it."""
    worst = (Code.GRANTED, -1, -1, -1)
    for number, (scope, counted) in enumerate(zip(ask.scopes, scopes, strict=True)):
        amount, told = ask.of(scope.name), counted.told()
        for bound, most in enumerate(scope.bounds):
            add = amount.concurrent if bound == 6 else amount[bound % 3]
            if most < 0 or not add or told.of(bound) + add <= most:
                continue
            wait_ms = NEVER_MS if add > most else clears_ms(bound, now_ms)
            if wait_ms > worst[3]:
                worst = (Code.QUOTA, number, bound, wait_ms)
    return worst


def clears_ms(bound: int, now_ms: int) -> int:
    """How long until what was used of a bound is forgotten. Of places, nobody knows: a second."""
    if bound >= 6:
        return 1000
    window_ms = MINUTE_MS if bound < 3 else DAY_MS
    return window_ms - now_ms % window_ms


def _spends(ask: Ask, spending: Spending, would: int) -> int:
    """Whether the budget allows it."""
    over = [step for step in spending.steps if would > step.nano_usd]
    if ask.may_spill and any(step.spill for step in over):
        return Code.SPILLED
    return Code.BUDGET if any(step.refuse for step in over) else Code.GRANTED
