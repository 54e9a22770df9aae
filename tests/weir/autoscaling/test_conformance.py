"""What every autoscaling policy keeps. A new one enters by being registered."""

from dataclasses import replace

import pytest

import weir.autoscaling.policies  # noqa: F401 - registers them
from tests.weir.autoscaling.fleets import LARGE, SMALL, model
from weir.autoscaling.registry import build_policy, policy_names
from weir.autoscaling.report import Demand

every_policy = pytest.mark.parametrize("name", policy_names())
STEP_S = 30.0


def settle(name, states, counts=None):
    """Decisions one after the other, each carried out before the next."""
    policy, state, counts = build_policy(name), None, dict(counts or {})
    seen = []
    for number, make in enumerate(states):
        asked = make(counts)
        decision = policy.decide(asked, number * STEP_S, state)
        state, counts = decision.state, dict(decision.targets)
        seen.append(decision)
    return seen


def follows(make):
    """Requests in flight as a fleet has them that is not overloaded."""
    return lambda counts: _busy(make(counts))


def _busy(state):
    pools = []
    total = sum(pool.ready for pool in state.pools) or 1
    tokens = sum(d.computed_tokens_per_s for d in state.classes.values())
    streams = tokens / 500 * 1.5
    for pool in state.pools:
        running = round(streams * pool.ready / total)
        pools.append(
            replace(pool, running_requests=running, kv_use=min(1.0, streams / total / 200))
        )
    return replace(state, pools=tuple(pools))


@every_policy
def test_targets_stay_within_the_pools_bounds(name):
    pools = (replace(LARGE, least=1, most=3), replace(SMALL, least=0, most=2))
    for tokens in (0.0, 1.0, 5e4, 1e9):
        found = settle(name, [follows(lambda c, t=tokens: model(t, pools, c))] * 5)
        for decision in found:
            for pool in pools:
                assert pool.least <= decision.targets[pool.name] <= pool.most


@every_policy
def test_the_same_question_has_the_same_answer(name):
    states = [follows(lambda c: model(6e4, (LARGE,), c))] * 20
    first, second = settle(name, states), settle(name, states)
    assert [d.targets for d in first] == [d.targets for d in second]


@every_policy
def test_every_decision_says_why(name):
    for decision in settle(name, [follows(lambda c: model(6e4, (LARGE,), c))] * 3):
        assert decision.explanation.because
        assert decision.explanation.seen


@every_policy
def test_constant_load_is_not_answered_by_swinging(name):
    states = [follows(lambda c: model(9e4, (LARGE,), c, ttft_p90_s=0.9, tpot_p90_s=0.04))] * 400
    counts = [sum(d.targets.values()) for d in settle(name, states, {"large": 4})]
    late = counts[200:]
    turns = sum((b - a) * (c - b) < 0 for a, b, c in zip(late, late[1:], late[2:], strict=False))
    assert turns == 0, late


@every_policy
def test_a_fleet_that_drowns_grows(name):
    slow = {"ttft_p90_s": 30.0, "tpot_p90_s": 1.0, "waiting_tokens": 5e6, "waiting_requests": 9000}

    def drowning(counts):
        state = model(2e5, (LARGE,), counts, **slow)
        return replace(
            state,
            pools=tuple(
                replace(p, kv_use=1.0, running_requests=300 * p.ready) for p in state.pools
            ),
        )

    counts = [sum(d.targets.values()) for d in settle(name, [drowning] * 40, {"large": 2})]
    assert counts[-1] > 3


@every_policy
def test_a_model_that_nobody_asks_shrinks(name):
    def idle(counts):
        state = model(0.0, (LARGE,), counts)
        return replace(state, classes={"interactive": Demand()}, history=())

    counts = [sum(d.targets.values()) for d in settle(name, [idle] * 200, {"large": 20})]
    assert counts[-1] <= 1
