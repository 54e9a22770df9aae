"""Money: a cap per request, and a simple count of what each tenant has spent."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from weir.settings.fallback import CostSettings


class Budgets:
    """USD per tenant and period, in this process's memory.

    With several gateways each counts its own part, and a restart begins at zero: a brake, not a
    bill. Requests in flight are counted when they end, so a tenant may overshoot by those.
    """

    def __init__(
        self, budgets_usd: Mapping[str, float], period_s: float, clock: Callable[[], float]
    ) -> None:
        self._budgets_usd = dict(budgets_usd)
        self._period_s = period_s
        self._clock = clock
        self._began_s = clock()
        self._spent_usd: dict[str, float] = {}

    def spend(self, tenant: str, usd: float) -> None:
        """So much was used."""
        self._roll()
        if tenant in self._budgets_usd:
            self._spent_usd[tenant] = self._spent_usd.get(tenant, 0.0) + usd

    def is_spent(self, tenant: str) -> bool:
        """Whether the tenant has a budget, and nothing is left of it."""
        self._roll()
        budget = self._budgets_usd.get(tenant)
        return budget is not None and self._spent_usd.get(tenant, 0.0) >= budget

    def _roll(self) -> None:
        elapsed = self._clock() - self._began_s
        if elapsed >= self._period_s:
            self._began_s += self._period_s * (elapsed // self._period_s)
            self._spent_usd.clear()


class CostPolicy:
    """``tenant`` has spent its budget, or the request could cost more than the cap."""

    def __init__(self, settings: CostSettings, clock: Callable[[], float]) -> None:
        self._cap_usd = settings.price_cap_usd
        self.budgets = Budgets(settings.tenant_budgets_usd, settings.budget_period_s, clock)

    @property
    def has_cap(self) -> bool:
        """Whether the worst cost matters at all."""
        return self._cap_usd is not None

    def judge(self, tenant: str, worst_cost_usd: float) -> bool:
        """``worst_cost_usd``: the whole prompt uncached, and all output that it may have."""
        over_cap = self._cap_usd is not None and worst_cost_usd > self._cap_usd
        return over_cap or self.budgets.is_spent(tenant)
