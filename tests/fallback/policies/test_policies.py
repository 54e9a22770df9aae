"""Hysteresis, overload, cost, permissions and their order."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fallback.policies import (
    COST,
    FAILURE,
    LONG_TAIL,
    OVERLOAD,
    Hysteresis,
    OverloadPolicy,
    RequestFacts,
    SpillPolicy,
)
from weir.settings.fallback import (
    CostSettings,
    FailureSettings,
    FallbackSettings,
    LongTailSettings,
    OverloadSettings,
    TenantFallbackSettings,
)


@dataclass
class Clock:
    now_s: float = 100.0

    def __call__(self) -> float:
        return self.now_s


@given(st.lists(st.tuples(st.floats(0, 0.5), st.floats(0, 2)), max_size=300), st.floats(0.1, 3))
@settings(max_examples=150, deadline=None)
def test_hysteresis_flaps_no_more_than_allowed_and_always_recovers(
    history: list[tuple[float, float]], dwell_s: float
) -> None:
    clock = Clock()
    switch = Hysteresis(0.8, 0.4, dwell_s, clock)
    began, turned_on, before = clock.now_s, [], False
    for pause_s, value in history:
        clock.now_s += pause_s
        now = switch.update(value)
        if value >= 0.8:
            assert now, "goes on at once"
        if now and not before:
            turned_on.append(clock.now_s)
        before = now
    assert len(turned_on) <= 1 + (clock.now_s - began) / dwell_s
    clock.now_s += dwell_s + 1e-6
    assert switch.update(0.4) is False


def test_hysteresis_needs_a_gap() -> None:
    with pytest.raises(ValueError, match="must be below"):
        Hysteresis(0.5, 0.5, 1, Clock())


def overload(clock: Clock) -> OverloadPolicy:
    return OverloadPolicy(
        OverloadSettings(enter_at=0.5, leave_at=0.2, dwell_s=1), {"interactive": 2.0}, clock
    )


def test_overload_judges_each_class_by_its_own_slo() -> None:
    policy = overload(Clock())
    assert not policy.judge("interactive", 0.9)
    assert policy.judge("interactive", 1.0)
    assert policy.spilling("interactive")
    assert not policy.judge("batch", 1e9), "no SLO, no prediction to fail"
    assert (policy.patience_s("interactive"), policy.patience_s("batch")) == (1.0, None)


def test_what_a_replica_takes_counts_too() -> None:
    policy = overload(Clock())
    for _ in range(100):
        policy.observe_first_token(0.8)
    assert policy.judge("interactive", 0.25)


def test_an_unknown_wait_changes_nothing() -> None:
    clock = Clock()
    policy = overload(clock)
    assert not policy.judge("interactive", None)
    policy.judge("interactive", 5.0)
    clock.now_s += 60
    assert policy.judge("interactive", None)
    assert not policy.judge("interactive", 0.1)


FACTS = RequestFacts("t", "interactive")


def policy(fallback: FallbackSettings | None = None, clock: Clock | None = None) -> SpillPolicy:
    slo = {"interactive": 2.0, "standard": 10.0}
    made = fallback or FallbackSettings(student="s")
    return SpillPolicy(made, slo, clock or Clock())


def wishing(facts: RequestFacts, **wishes: tuple[Any, ...]) -> RequestFacts:
    return replace(facts, wishes=TenantFallbackSettings(**wishes))


def test_what_a_request_is_decides_before_how_the_pool_does() -> None:
    fallback = FallbackSettings(
        student="s",
        long_tail=LongTailSettings(rare_intents=("refund",)),
        cost=CostSettings(price_cap_usd=0.01),
    )
    spills = policy(fallback)
    assert spills.at_arrival(FACTS) is None
    assert spills.at_arrival(replace(FACTS, long_tail=True)) == LONG_TAIL
    assert spills.at_arrival(replace(FACTS, intent="refund")) == LONG_TAIL
    assert spills.at_arrival(replace(FACTS, intent="order_status")) is None
    assert spills.at_arrival(replace(FACTS, long_tail=True, worst_cost_usd=0.02)) == COST


def test_a_spent_budget_spills_unless_the_tenant_forbids_it() -> None:
    spills, spent = policy(), replace(FACTS, over_budget=True)
    assert spills.at_arrival(FACTS) is None
    assert spills.at_arrival(spent) == COST
    assert spills.at_arrival(replace(spent, wishes=TenantFallbackSettings(forbid=(COST,)))) is None


@pytest.mark.parametrize("old", [{"tenant_budgets_usd": {"t": 1.0}}, {"budget_period_s": 60}])
def test_the_setting_that_budgets_had_says_where_they_are_now(old: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"is gone: .*tenants\[\]\.budget"):
        CostSettings.model_validate(old)


def test_an_empty_pool_spills_and_a_tenant_that_forbids_it_still_enters() -> None:
    spills = policy()
    assert spills.enter(FACTS, replicas=0) is None
    assert not spills.is_broken, "at start-up nothing has failed yet"
    forbids = wishing(FACTS, forbid=(FAILURE,))
    assert spills.enter(forbids, replicas=0) is not None


def test_who_may_not_spill_leaves_the_probe_to_others() -> None:
    clock = Clock()
    fallback = FallbackSettings(student="s", failure=FailureSettings(open_s=1))
    spills = policy(fallback, clock)
    forbids, other = wishing(FACTS, forbid=(FAILURE,)), replace(FACTS, tenant="other")
    spills.breaker.trip()
    assert spills.enter(other, replicas=1) is None
    clock.now_s += 1
    entered = spills.enter(forbids, replicas=1)
    assert entered is not None
    spills.breaker.failed(entered)
    probe = spills.enter(other, replicas=1)
    assert probe is not None
    assert probe.probe


def test_overload_is_for_its_classes_unless_a_tenant_requires_it() -> None:
    spills = policy()
    batch = replace(FACTS, priority_class="batch")
    standard = replace(FACTS, priority_class="standard")
    assert spills.overloaded(FACTS, 5.0, refused=False)
    assert spills.overloaded(FACTS, None, refused=True)
    assert not spills.overloaded(standard, 50.0, refused=True)
    assert not spills.overloaded(batch, None, refused=True)
    assert spills.patience_s(standard) is None
    assert spills.overloaded(wishing(standard, require=(OVERLOAD,)), 5.0, refused=False)
    required = wishing(batch, require=(OVERLOAD,))
    assert spills.overloaded(required, None, refused=True)
    assert spills.patience_s(required) is None, "no SLO, no limit"


def test_a_tenant_may_forbid_what_is_on_and_require_what_is_off() -> None:
    fallback = FallbackSettings(student="s", long_tail=LongTailSettings(enabled=False))
    long_tail = replace(FACTS, long_tail=True)
    off = policy(fallback)
    assert off.at_arrival(long_tail) is None
    assert off.at_arrival(wishing(long_tail, require=(LONG_TAIL,))) == LONG_TAIL
    assert policy().at_arrival(wishing(long_tail, forbid=(LONG_TAIL,))) is None


def test_both_at_once_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="both forbidden and required"):
        TenantFallbackSettings(forbid=(COST,), require=(COST,))
