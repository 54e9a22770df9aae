"""The cheapest replicas: never dearer than greedy, never too few in silence."""

import random
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from load_tests.autoscaling.programme import random_pools, random_work
from tests.weir.autoscaling.fleets import LARGE, SMALL, SPOT_A, SPOT_B
from weir.autoscaling.programme import Risk, Work, cheapest, greedy, missing_work


@settings(deadline=None, max_examples=150)
@given(st.integers(0, 1_000_000))
def test_random_fleets(seed):
    rng = random.Random(seed)
    pools, work, risk = random_pools(rng), random_work(rng), Risk()
    plain, found = greedy(pools, work, risk), cheapest(pools, work, risk)
    for pool in pools:
        assert pool.least <= found.targets[pool.name] <= pool.most
    if not found.short:
        promised = replace(risk, keep=0.0) if found.exposed else risk
        assert missing_work(pools, found.targets, work, promised) < 1e-5
        if not plain.short:
            assert found.usd_per_hour <= plain.usd_per_hour + 1e-6


def test_losing_a_place_leaves_what_was_asked_for():
    pools, work, risk = (LARGE, SPOT_A, SPOT_B), Work(4e5, 8e4), Risk(keep=0.7)
    found = cheapest(pools, work, risk)
    for lost in ("spot-a", "spot-b"):
        left = {name: 0 if name == lost else count for name, count in found.targets.items()}
        part = Work(0.7 * 4e5, 0.7 * 8e4)
        assert missing_work(pools, left, part, replace(risk, keep=0.0)) < 1e-6


def test_roles_do_their_own_part():
    pools = (replace(LARGE, name="p", role="prefill"), replace(LARGE, name="d", role="decode"))
    found = cheapest(pools, Work(1e5, 1e4), Risk())
    assert found.targets["p"] == 4  # 1e5 / (40,000 * 0.8) = 3.1
    assert found.targets["d"] == 2  # 1e4 / (12,000 * 0.8) = 1.04


def test_the_same_question_has_the_same_answer():
    pools, work = (LARGE, SMALL, SPOT_A), Work(3.3e5, 7.7e4, 600)
    assert cheapest(pools, work, Risk()) == cheapest(pools, work, Risk())


def test_nothing_to_do_needs_only_what_is_the_least():
    pools = (replace(LARGE, least=1), SMALL)
    assert cheapest(pools, Work(0, 0), Risk()).targets == {"large": 1, "small": 0}


def test_places_that_cost_the_same_do_not_change_places():
    pools = (replace(SPOT_A, name="a"), replace(SPOT_A, name="b", region="elsewhere"))
    for level in range(1, 40):
        found = cheapest(pools, Work(2e4 * level, 3e3 * level), Risk(keep=0.0))
        assert found.targets["a"] >= found.targets["b"]
