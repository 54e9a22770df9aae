"""From what gateways tell to targets: rates, bounds, memory, caution."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

import weir.autoscaling.policies  # noqa: F401 - registers them
from weir.autoscaling.collecting import STALE_S, Collector, ModelPlan, PoolPlan
from weir.autoscaling.deciding import Decided, Scaler, holding
from weir.autoscaling.registry import build_policy, policy_names
from weir.autoscaling.report import (
    Capacity,
    Decision,
    Demand,
    Explanation,
    ModelState,
    PoolState,
)
from weir.autoscaling.telling import (
    BINS_S,
    ClassTold,
    GatewayTold,
    ModelTold,
    ReplicaTold,
    bin_of,
    no_times,
    pack,
    quantile_s,
    unpack,
)

CAPACITY = Capacity(2000.0, 400.0, 0.8)


def plan(least: int = 1, most: int = 4, **more: Any) -> ModelPlan:
    pool = PoolState("m", CAPACITY, 1.0, least=least, most=most, start_s=10.0)
    return ModelPlan("m", (PoolPlan(pool, "model-m"),), **more)


def told(
    at_s: float,
    arrivals: int = 0,
    replicas: int = 1,
    gateway: str = "g",
    waiting: int = 0,
    **each: Any,
) -> GatewayTold:
    """Requests of 100 prompt tokens, 50 of them cached, and 50 of output."""
    seen = ClassTold(arrivals, arrivals * 100, arrivals * 50, arrivals * 50)
    seen.waiting_requests, seen.waiting_tokens = waiting, waiting * 50.0
    seen.waiting_output_tokens, seen.oldest_wait_s = waiting * 50.0, 3.0 if waiting else 0.0
    up = {f"r{i}": ReplicaTold("", True, started_s=0.0, **each) for i in range(replicas)}
    return GatewayTold(gateway, 0.0, at_s, {"m": ModelTold({"standard": seen}, up)})


class Fixed:
    """Wants so many replicas, and counts how often it was asked."""

    def __init__(self, wanted: int) -> None:
        self.wanted = wanted

    def decide(self, model: ModelState, now_s: float, state: Any) -> Decision:
        asked = (state or 0) + 1
        return Decision({"m": self.wanted}, Explanation(because="it is fixed"), state=asked)


def test_a_report_survives_redis_and_another_version_does_not_break_it() -> None:
    report = told(5.0, 3)
    assert unpack(pack(report)) == report
    assert unpack(b"something else") is None


def test_rates_are_differences_over_the_window_summed_over_gateways() -> None:
    collector = Collector(window_s=30.0)
    for second in range(0, 62, 2):
        at_s = 1000.0 + second
        assert collector.take([told(at_s, second * 3), told(at_s, second, gateway="h")], at_s)
    demand = collector.demand(plan(), 1060.0)["standard"]
    assert demand.arrivals_per_s == pytest.approx(4.0)
    assert demand.prompt_tokens_per_s == pytest.approx(400.0)
    assert demand.computed_tokens_per_s == pytest.approx(200.0)
    assert demand.output_tokens_per_s == pytest.approx(200.0)


def test_a_gateway_that_is_silent_no_longer_counts() -> None:
    collector = Collector()
    collector.take([told(1000.0, 0), told(1000.0, 0, gateway="h", waiting=7)], 1000.0)
    collector.take([told(1000.0 + STALE_S + 1, 0)], 1000.0 + STALE_S + 1)
    assert collector.demand(plan(), 1016.0)["standard"].waiting_requests == 0
    assert not collector.take([], 2000.0)


def test_the_time_of_the_oldest_goes_on_after_the_report() -> None:
    collector = Collector()
    collector.take([told(1000.0, waiting=2)], 1004.0)
    assert collector.demand(plan(), 1004.0)["standard"].oldest_wait_s == pytest.approx(7.0)


def test_quantiles_are_the_bins_upper_bounds() -> None:
    counts = no_times()
    for _ in range(9):
        counts[bin_of(0.02)] += 1
    counts[bin_of(3.0)] += 1
    assert 0.02 <= quantile_s(counts, 0.9) <= 0.03
    assert 3.0 <= quantile_s(counts, 0.99) <= 4.5
    assert quantile_s(no_times(), 0.9) == 0.0
    assert bin_of(1e9) == len(BINS_S)


def test_nothing_is_decided_while_nobody_tells_anything() -> None:
    assert Scaler([plan()], Fixed(3)).decide([], 1000.0) == []
    assert Scaler([plan()], Fixed(3)).decide([told(900.0)], 1000.0) == []


@pytest.mark.parametrize(("wanted", "expected"), [(0, 1), (3, 3), (9, 4)])
def test_targets_stay_within_the_bounds(wanted: int, expected: int) -> None:
    decided = Scaler([plan()], Fixed(wanted)).decide([told(1000.0)], 1000.0)[0]
    assert decided.targets == {"m": expected}
    assert decided.deployments == {"m": "model-m"}
    assert decided.usd_per_hour == expected


def test_without_a_memory_nothing_shrinks_at_first() -> None:
    scaler = Scaler([plan()], Fixed(1))
    assert scaler.decide([told(1000.0, replicas=3)], 1000.0)[0].targets == {"m": 3}
    assert scaler.decide([told(1059.0, replicas=3)], 1059.0)[0].targets == {"m": 3}
    assert scaler.decide([told(1061.0, replicas=3)], 1061.0)[0].targets == {"m": 1}


def test_a_successor_goes_on_where_the_last_one_was() -> None:
    first = Scaler([plan()], Fixed(3))
    first.decide([told(1000.0, replicas=1)], 1000.0)
    second = Scaler([plan()], Fixed(1))
    second.remember(first.memory(1000.0), [told(1005.0)], 1005.0)
    decided = second.decide([told(1006.0, replicas=3)], 1006.0)[0]
    assert decided.before == {"m": 3}
    assert decided.targets == {"m": 1}
    assert decided.decision.state == 2


def test_a_platform_that_has_started_anew_begins_with_what_its_settings_say() -> None:
    first = Scaler([plan(least=0)], Fixed(0))
    first.decide([told(1000.0, replicas=0)], 1000.0)
    pool = replace(plan(least=0).pools[0], begins_with=2)
    second = Scaler([replace(plan(least=0), pools=(pool,))], Fixed(0))
    report = GatewayTold("new", 1050.0, 1060.0, {"m": ModelTold()})
    second.remember(first.memory(1000.0), [report], 1060.0)
    assert second.decide([report], 1060.0)[0].targets == {"m": 2}


def test_a_memory_of_another_version_is_no_harm() -> None:
    scaler = Scaler([plan()], Fixed(2))
    scaler.remember(b"\x00", [told(1000.0)], 1000.0)
    assert scaler.decide([told(1000.0)], 1000.0)[0].targets == {"m": 2}


def test_start_up_time_is_learned_from_replicas_that_come() -> None:
    scaler = Scaler([plan()], Fixed(2))
    scaler.decide([told(1000.0, replicas=1)], 1000.0)
    for second in range(2, 30, 2):
        at_s = 1000.0 + second
        scaler.decide([told(at_s, replicas=1 if second < 20 else 2)], at_s)
    start_s = scaler.report(1030.0).models[0].pools[0].start_s
    assert start_s == pytest.approx(20.0 * 1.5, rel=0.1)


def test_capacity_is_learned_and_a_cold_start_left_out() -> None:
    scaler = Scaler([plan()], Fixed(1))
    for second in range(0, 200, 4):
        at_s = 1000.0 + second
        done = {"steps": second * 50, "decode_tokens": second * 500, "busy_s": second * 0.9}
        scaler.decide([told(at_s, most_running=10, **done)], at_s)
    pool = scaler.report(1200.0).models[0].pools[0]
    assert pool.capacity.error < 0.2
    # Ten answers a step, of 18 ms each.
    assert pool.capacity.decode_tokens_per_s == pytest.approx(10 / 0.018, rel=0.2)


def _run(scaler: Scaler, from_s: int, until_s: int, per_s: int, waiting: int = 0) -> Decided:
    decided = None
    before = 0 if from_s == 0 else 10_000
    for second in range(from_s, until_s, 5):
        at_s = 1000.0 + second
        arrivals = before + (second - from_s) * per_s
        decided = scaler.decide([told(at_s, arrivals, replicas=1, waiting=waiting)], at_s)[0]
    assert decided is not None
    return decided


@pytest.mark.parametrize("name", policy_names())
def test_every_policy_works_with_what_gateways_tell_and_its_memory_is_plain(name: str) -> None:
    scaler = Scaler([plan(least=0)], build_policy(name))
    decided = _run(scaler, 0, 300, 20)
    assert 0 <= decided.targets["m"] <= 4
    after = Scaler([plan(least=0)], build_policy(name))
    after.remember(scaler.memory(1295.0), [told(1296.0)], 1296.0)
    again = after.decide([told(1300.0, 0, waiting=0)], 1300.0)[0]
    assert again.before == decided.targets
    assert again.decision.explanation.because


def test_weir_follows_demand_up_and_down_and_to_zero() -> None:
    scaler = Scaler([plan(least=0)], build_policy("weir", {"down_after_s": 60.0}))
    # 20 requests a second bring 1,000 tokens to compute and 1,000 to generate: 3 s of work.
    assert _run(scaler, 0, 120, 20).targets == {"m": 4}
    assert _run(scaler, 120, 400, 2).targets == {"m": 1}
    assert _run(scaler, 400, 700, 0).targets == {"m": 0}
    assert _run(scaler, 700, 710, 0, waiting=1).targets == {"m": 1}


def test_a_replica_with_a_notice_counts_as_gone_and_its_market_is_learned() -> None:
    scaler = Scaler([plan()], Fixed(2))
    for second in range(0, 3600, 20):
        at_s = 1000.0 + second
        report = told(at_s, replicas=2)
        first = report.models["m"].replicas["r0"]
        first.interrupted = first.draining = second >= 1800
        scaler.decide([report], at_s)
    pool = scaler.report(4600.0).models[0].pools[0]
    assert (pool.ready, pool.starting, pool.draining) == (1, 1, 1)
    # One notice in two replica-hours, beside a hundred hours without any.
    assert pool.interruptions_per_hour == pytest.approx(1 / 102, rel=0.02)


@pytest.mark.parametrize(
    ("running", "wanted", "expected"), [(0, 0, 0), (1, 0, 1), (39, 0, 1), (41, 1, 2), (900, 1, 3)]
)
def test_replicas_stay_while_answers_need_them(running: int, wanted: int, expected: int) -> None:
    """A replica generates 400 tokens a second: 40 answers within the limit of 0.1 s."""
    pool = replace(plan(least=0).pools[0].state, ready=3, running_requests=running)
    assert holding(ModelState("m", {}, (pool,)), {"m": wanted}) == {"m": expected}


def test_answers_that_may_wait_keep_no_replica() -> None:
    """Batch work fills what there is, so it would keep whatever there is."""
    pool = replace(plan(least=0).pools[0].state, ready=3, running_requests=100)
    patient = {"batch": Demand(deferrable_s=3600.0, generating=100)}
    assert holding(ModelState("m", patient, (pool,)), {"m": 1}) == {"m": 1}
    some = {"batch": Demand(deferrable_s=3600.0, generating=30)}
    assert holding(ModelState("m", some, (pool,)), {"m": 1}) == {"m": 2}
    assert holding(ModelState("m", patient, (pool,)), {"m": 0}) == {"m": 1}


def test_pools_cost_what_they_do_at_the_hour() -> None:
    pool = PoolState("m", CAPACITY, 3.0, most=4, usd_by_hour=(1.0, *[3.0] * 23))
    scaler = Scaler([ModelPlan("m", (PoolPlan(pool, "model-m"),))], Fixed(2))
    (cheap,) = scaler.decide([told(86_400.0)], 86_400.0)
    assert cheap.usd_per_hour == 2.0
    (dear,) = scaler.decide([told(90_000.0)], 90_000.0)
    assert dear.usd_per_hour == 6.0


def test_nothing_is_added_for_answers_under_way() -> None:
    pool = replace(plan(least=0).pools[0].state, ready=1, running_requests=900)
    assert holding(ModelState("m", {}, (pool,)), {"m": 1}) == {"m": 1}


# A machine that is taken away.


def two_pools() -> ModelPlan:
    """A spot pool, which is cheaper, and one beside it."""
    pools = [
        PoolState(name, CAPACITY, usd, least=0, most=1, start_s=10.0)
        for name, usd in (("spot", 0.4), ("steady", 1.0))
    ]
    return ModelPlan("m", tuple(PoolPlan(pool, f"model-{pool.name}") for pool in pools))


class Cheapest:
    """Wants one spot replica and nothing else: what arrives would need no more."""

    def decide(self, model: ModelState, now_s: float, state: Any) -> Decision:
        return Decision({"spot": 1, "steady": 0}, Explanation())


def at_notice(at_s: float, spot: str, on_steady: int, generating: int, **each: Any) -> GatewayTold:
    """Answers on the steady replica; those on one that has gone are under way all the same."""
    up = {
        spot: ReplicaTold("spot", True, **each),
        "steady-0": ReplicaTold("steady", True, running=on_steady),
    }
    return GatewayTold("g", 0.0, at_s, {"m": ModelTold({}, up, generating)})


def test_answers_that_have_just_moved_are_not_moved_again() -> None:
    """The replacement is up at once, and cheaper than where the answers went: they stay there."""
    scaler, moved = Scaler([two_pools()], Cheapest()), 0
    on, before = "spot-0", {}
    for second in range(0, 400, 2):
        at_s = 1000.0 + second
        if second < 100:  # the first minute of a platform, and more
            report = at_notice(at_s, "spot-0", 40, 20, running=20)
        elif second < 110:
            on = "steady-0"
            report = at_notice(at_s, "spot-0", 40, 40, draining=True, interrupted=True)
        else:
            report = at_notice(at_s, "spot-1", 40 if on == "steady-0" else 0, 40)
        (decided,) = scaler.decide([report], at_s)
        if second == 90:
            before = dict(decided.targets)
        if 100 <= second < 160:
            assert decided.targets["steady"] == 1
        moved += decided.targets["steady"] == 0 and on == "steady-0" and second < 160
    assert before["steady"] == 1  # forty answers do not fit on one replica
    assert moved == 0
    assert decided.targets["steady"] == 0  # a minute later the cheaper one is enough


def test_a_replica_stays_for_answers_on_one_that_leaves() -> None:
    """The report came while they were moving: no replica says that it has them."""
    scaler = Scaler([two_pools()], FixedTargets({"spot": 0, "steady": 0}))
    for second in range(0, 200, 2):
        at_s = 1000.0 + second
        up = {"spot-0": ReplicaTold("spot", True)}
        under_way = 100 if second < 150 else 0
        report = GatewayTold("g", 0.0, at_s, {"m": ModelTold({}, up, under_way)})
        (decided,) = scaler.decide([report], at_s)
        if 70 <= second < 150:
            assert decided.targets["spot"] == 1
    assert decided.targets["spot"] == 0


class FixedTargets:
    """Always the same answer."""

    def __init__(self, targets: dict[str, int]) -> None:
        self._targets = targets

    def decide(self, model: ModelState, now_s: float, state: Any) -> Decision:
        return Decision(self._targets, Explanation())


def test_replicas_that_start_hold_no_answers() -> None:
    """The cheaper replica is asked for: until it serves, the other one keeps its answers."""
    base = PoolState("a", CAPACITY, 0.4, most=1)
    beside = replace(base, name="b", usd_per_hour=1.0, ready=1, running_requests=30)
    model = ModelState("m", {}, (replace(base, starting=1), beside), generating=30)
    assert holding(model, {"a": 1, "b": 0})["b"] == 1
    up = replace(model, pools=(replace(base, ready=1), beside))
    assert holding(up, {"a": 1, "b": 0})["b"] == 0


def test_answers_whose_replicas_all_leave_get_a_new_one() -> None:
    """A notice takes the one machine while nothing new arrives."""
    base = PoolState("a", CAPACITY, 0.4, most=1)
    beside = replace(base, name="b", usd_per_hour=1.0, draining=1, running_requests=30)
    model = ModelState("m", {}, (base, beside), generating=30)
    assert holding(model, {"a": 0, "b": 0}) == {"a": 1, "b": 0}
    idle = replace(model, pools=(base, replace(beside, running_requests=0)), generating=0)
    assert holding(idle, {"a": 0, "b": 0}) == {"a": 0, "b": 0}
