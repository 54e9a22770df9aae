"""All of one model's spill policies in their order.

What a request *is* decides first, then how the pool *does*:

1. cost: the tenant's budget is spent, or the request is too dear;
2. long-tail: no generated features for its entity, or a rare intent;
3. capacity: the autoscaler prefers the student to one more replica, and this request's turn came;
4. failure: the circuit is open, or there is no replica;
5. overload: the SLO cannot be met;
6. cascade: the student answers first anyway.

In this order a request that was never to reach the teacher takes no probe of the circuit breaker,
and the reason it is counted under does not depend on how busy the teacher happens to be.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from fallback.policies.breaker import BreakerState, CircuitBreaker, Pass
from fallback.policies.cost import CostPolicy
from fallback.policies.kinds import (
    CAPACITY,
    COST,
    FAILURE,
    LONG_TAIL,
    NO_WISHES,
    OVERLOAD,
    permissions,
)
from fallback.policies.overload import OverloadPolicy
from weir.settings.fallback import FallbackSettings, Kind, TenantFallbackSettings


@dataclass(frozen=True, slots=True)
class RequestFacts:
    """What the policies know of a request. ``intent``: what the client says it is, if it does;
    ``wishes``: its tenant's own word; ``over_budget``: so much of the tenant's budget is spent that
    it has a student answer; ``surplus``: its turn came among those that the autoscaler leaves to
    the student."""

    tenant: str
    priority_class: str
    long_tail: bool = False
    intent: str | None = None
    worst_cost_usd: float = 0.0
    wishes: TenantFallbackSettings = NO_WISHES
    over_budget: bool = False
    surplus: bool = False


class SpillPolicy:
    """One per model and gateway. ``slo_s``: time-to-first-token limit per priority class."""

    def __init__(
        self,
        settings: FallbackSettings,
        slo_s: Mapping[str, float],
        clock: Callable[[], float],
        on_open: Callable[[], None] | None = None,
    ) -> None:
        self.permissions = permissions(settings)
        self.cost = CostPolicy(settings.cost)
        self.breaker = CircuitBreaker(settings.failure, clock, on_open)
        self.overload = OverloadPolicy(settings.overload, slo_s, clock)
        self._rare = frozenset(settings.long_tail.rare_intents)

    def allows(self, kind: Kind, facts: RequestFacts) -> bool:
        """May the request spill for this reason?"""
        return self.permissions.allow(kind, facts.wishes, facts.priority_class)

    def at_arrival(self, facts: RequestFacts) -> Kind | None:
        """Steps 1 to 3: what the request itself gives reason for, and whether its turn came."""
        dear = facts.over_budget or self.cost.judge(facts.worst_cost_usd)
        if dear and self.allows(COST, facts):
            return COST
        if (facts.long_tail or facts.intent in self._rare) and self.allows(LONG_TAIL, facts):
            return LONG_TAIL
        return CAPACITY if facts.surplus and self.allows(CAPACITY, facts) else None

    def enter(self, facts: RequestFacts, replicas: int) -> Pass | None:
        """Step 4: a pass to the teacher, or None: spill for failure. Who may not spill for
        failure always gets one; it neither probes nor waits for those who do."""
        if not self.allows(FAILURE, facts):
            return Pass(False, -1)
        # Before the first replica is up nothing has failed: the circuit stays as it is.
        return self.breaker.enter() if replicas else None

    def overloaded(
        self, facts: RequestFacts, predicted_wait_s: float | None, refused: bool
    ) -> bool:
        """Step 5, asked by admission. ``refused``: without a student it would fail now."""
        if not self.allows(OVERLOAD, facts):
            return False
        judged = self.overload.judge(facts.priority_class, predicted_wait_s)
        return refused or judged

    def patience_s(self, facts: RequestFacts) -> float | None:
        """How long the request may wait at the teacher's gate before it spills."""
        if not self.allows(OVERLOAD, facts):
            return None
        return self.overload.patience_s(facts.priority_class)

    @property
    def is_broken(self) -> bool:
        """Whether the circuit is not closed."""
        return self.breaker.state is not BreakerState.CLOSED
