"""The least that a week can cost: below whatever a policy pays, and not far below the best."""

import numpy as np
import pytest

import weir.autoscaling.policies  # noqa: F401 - registers the policies
from load_tests.autoscaling.bound import Limits, Scheduled, Week, lower_bound
from load_tests.autoscaling.bound_rows import bound_marks, compare_bounds
from load_tests.autoscaling.engines import LoadRow, ReplicaTable, fine
from load_tests.autoscaling.fleet import PoolKind, World
from load_tests.autoscaling.fluid import Fluid
from load_tests.autoscaling.traces import Ticks
from weir.autoscaling.registry import build_policy
from weir.autoscaling.report import Capacity, PoolState

LIMITS = Limits(0.99, 0.01, 3600.0, 2.0)
PER_REQUEST = 6.0 / 3600 / 8.0


def kind(most=30):
    points = (
        LoadRow(0.0, 0.0, 0.0, 1.0, 0.0),
        LoadRow(0.8, 0.4, 0.04, 0.99, 40.0),
        LoadRow(1.2, 3.0, 0.09, 0.0, 120.0),
    )
    capacity = Capacity(1.8e4, 3e3, 0.8)  # 10 requests of 900 and 150 tokens a second
    table = ReplicaTable(tuple(fine(points)), 10.0, 200, capacity)
    return PoolKind(PoolState("one", capacity, 6.0, most=most, start_s=150.0), table)


def ticks(per_s, batch_per_s=0.0):
    requests = np.asarray(per_s, float) * 30.0
    batch = np.full(len(requests), batch_per_s * 30.0)
    return Ticks(30.0, requests, requests * 900, requests * 150, batch, batch * 900, batch * 150)


def days_like(seed=3, hours=10):
    rng = np.random.default_rng(seed)
    rates = np.repeat(rng.uniform(20, 150, hours * 6), 20)
    return ticks(rates * rng.gamma(60, 1 / 60, len(rates)))


def played(policy, demand, first):
    return Fluid(World((kind(),), 2.0, 0.05, seed=8), policy, demand).run(first)


def test_constant_demand_costs_the_replicas_that_it_needs():
    found = lower_bound(Week(kind(), [ticks([84.0] * 480)], LIMITS), PER_REQUEST)
    fractions = 84.0 / 8.0 * 6.0 * 4
    assert 0.97 * fractions < found.usd <= 11 * 6.0 * 4 + 1e-6


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("weir", {"headroom": 0.6, "down_after_s": 900.0}),
        ("weir", {"headroom": 1.5, "down_after_s": 300.0}),
        ("dynamo-sla", {"headroom": 1.5, "interval_s": 60.0}),
        ("kpa", {"target": 15.0}),
    ],
)
def test_no_policy_that_keeps_the_share_pays_less(name, params):
    demand = days_like()
    found = played(build_policy(name, params), demand, 20)
    share = Limits(found.met, 0.01, 3600.0, 2.0)
    bound = lower_bound(Week(kind(), [demand], share), PER_REQUEST)
    assert bound.usd <= found.usd + 1e-6


def test_a_schedule_that_knows_every_burst_comes_near_it():
    demand = days_like()
    found = lower_bound(Week(kind(), [demand], LIMITS), PER_REQUEST, with_schedule=True)
    policy = Scheduled("one", found.counts, 30.0, 150.0)
    out = played(policy, demand, policy.at_first)
    assert out.met > 0.98
    assert found.usd * 0.99 < out.usd < found.usd * 1.15


def test_who_knows_the_rates_alone_pays_more():
    demand = days_like(hours=4)
    draws = [days_like(hours=4), *(ticks(_redrawn(seed)) for seed in (1, 2, 3))]
    known = lower_bound(Week(kind(), [demand], LIMITS), PER_REQUEST).usd
    alike = lower_bound(Week(kind(), [demand, demand], LIMITS), PER_REQUEST).usd
    rates = lower_bound(Week(kind(), draws, LIMITS), PER_REQUEST).usd
    assert alike == pytest.approx(known)
    assert rates > known


def _redrawn(seed):
    rates = np.repeat(np.random.default_rng(3).uniform(20, 150, 24), 20)
    return rates * np.random.default_rng(seed).gamma(60, 1 / 60, len(rates))


def test_batch_work_has_to_be_paid_for():
    urgent = lower_bound(Week(kind(), [ticks([40.0] * 480)], LIMITS), PER_REQUEST).usd
    both = lower_bound(Week(kind(), [ticks([40.0] * 480, 40.0)], LIMITS), PER_REQUEST).usd
    assert 1.4 * urgent < both < 2.1 * urgent


def test_a_bound_is_compared_with_the_cheapest_peer_that_kept_the_limits():
    plain = [
        {"system": "A", "ours": False, "spot": False, "usd": 90.0, "kept_the_limits": False},
        {"system": "B", "ours": False, "spot": False, "usd": 120.0, "kept_the_limits": True},
        {"system": "weir", "ours": True, "spot": False, "usd": 80.0, "kept_the_limits": True},
    ]
    equal = [
        {"system": "A", "ours": False, "spot": False, "usd_at_share": 100.0, "is_bound": False},
        {"system": "B", "ours": False, "spot": False, "usd_at_share": 70.0, "is_bound": True},
        {"system": "weir", "ours": True, "spot": False, "usd_at_share": 90.0, "is_bound": False},
    ]
    bounds = [{"table": "t", "system": "s", "least_usd": 60.0}]
    compare_bounds(bounds, plain, equal)
    row = bounds[0]
    assert (row["over_best_peer"], row["over_best_peer_at_share"]) == (0.5, 0.6)
    assert row["weir_over_it"] == 1.5
    assert [mark.value for mark in bound_marks(bounds, 0.6)] == [0.6]
