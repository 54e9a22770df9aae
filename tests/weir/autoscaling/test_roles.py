"""Which part of a pool only computes prompts: by the demand, and steady."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

import weir.autoscaling.policies  # noqa: F401 - registers them
from weir.autoscaling.collecting import ModelPlan, PoolPlan
from weir.autoscaling.deciding import Decided, Scaler, holding
from weir.autoscaling.registry import build_policy
from weir.autoscaling.report import Capacity, Demand, ModelState, PoolState
from weir.autoscaling.roles import split_of, splits
from weir.autoscaling.telling import ClassTold, GatewayTold, ModelTold, ReplicaTold

CAPACITY = Capacity(10_000.0, 1_000.0, 0.8)


def model(*pools: PoolState, prompts: float = 0.0, answers: float = 0.0) -> ModelState:
    demand = Demand(computed_tokens_per_s=prompts, output_tokens_per_s=answers)
    return ModelState("m", {"standard": demand}, pools)


def pool(ready: int = 8, **more: object) -> PoolState:
    made = PoolState("a", CAPACITY, 1.0, ready=ready, most=16, splits=True)
    return replace(made, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("prompts", "answers", "expected"),
    [
        (20_000.0, 2_000.0, 4),  # two seconds of each per second
        (30_000.0, 1_000.0, 6),
        (1_000.0, 3_000.0, 1),  # somebody always computes prompts,
        (50_000.0, 100.0, 7),  # and somebody always answers
    ],
)
def test_the_split_follows_the_time_that_prompts_take(
    prompts: float, answers: float, expected: int
) -> None:
    assert splits(model(pool(), prompts=prompts, answers=answers)) == {"a": expected}


def test_a_pool_is_left_alone() -> None:
    assert splits(model(pool(), prompts=0.0, answers=0.0)) == {}
    assert splits(model(pool(ready=1), prompts=100.0, answers=100.0)) == {}
    assert splits(model(pool(splits=False), prompts=100.0, answers=100.0)) == {}


def test_what_other_pools_do_is_taken_off() -> None:
    prefill = PoolState("p", CAPACITY, 1.0, "prefill", ready=2, most=4)
    told = splits(model(pool(), prefill, prompts=26_000.0, answers=2_000.0))
    assert told == {"a": 3}  # 10,000 prompt tokens are left


@given(st.integers(2, 64), st.floats(0.0, 1.0), st.integers(0, 64))
def test_there_is_always_one_of_each(replicas: int, share: float, now: int) -> None:
    assert 1 <= split_of(replicas, share, now) <= replicas - 1


@given(st.integers(2, 64), st.floats(0.02, 0.98), st.floats(-0.2, 0.2))
def test_noise_of_a_fifth_of_a_replica_moves_nobody_again(
    replicas: int, share: float, noise: float
) -> None:
    """Demand that swings by so much may change the first split once, where that stood on the edge
    between two, and then never again."""
    now, seen = 0, []
    for number in range(8):
        moved = min(1.0, max(0.0, share + (-1) ** number * noise / replicas))
        now = split_of(replicas, moved, now)
        seen.append(now)
    assert all(one == other for one, other in pairwise(seen[1:]))


def test_the_split_is_decided_told_and_explained() -> None:
    state = PoolState("a", CAPACITY, 1.0, least=4, most=4, splits=True)
    plan = ModelPlan("m", (PoolPlan(state, "model-m-a", scales=False, learns=False),))
    scaler = Scaler([plan], build_policy("weir"))
    up = {f"r{i}": ReplicaTold("a", True) for i in range(4)}
    decided = []
    for at_s in (0.0, 10.0, 20.0, 30.0):
        seen = ClassTold(int(at_s), 0, int(at_s * 10_000), int(at_s * 1_000))
        report = GatewayTold("g", -100.0, at_s, {"m": ModelTold({"standard": seen}, up)})
        decided = scaler.decide([report], at_s)
    (one,) = decided
    assert one.prefilling == {"a": 2}
    assert one.decision.explanation.seen["prefill_replicas_a"] == 2.0
    assert one.deployments == {}  # their number is nobody's to change


def test_what_replicas_do_counts_once_nothing_is_decided_any_more() -> None:
    """Without demand no split is decided; replicas keep the last one for some minutes, and are
    mixed again when it has ended. They are counted as what they say they are."""
    state = PoolState("a", CAPACITY, 1.0, least=4, most=4, splits=True)
    plan = ModelPlan("m", (PoolPlan(state, "model-m-a", scales=False, learns=False),))
    scaler = Scaler([plan], build_policy("weir"))

    def decided(at_s: float, worked_s: float, *roles: str) -> Decided:
        seen = ClassTold(int(worked_s), 0, int(worked_s * 20_000), int(worked_s * 2_000))
        up = {f"r{i}": ReplicaTold("a", True, role=role) for i, role in enumerate(roles)}
        report = GatewayTold("g", -100.0, at_s, {"m": ModelTold({"standard": seen}, up)})
        return scaler.decide([report], at_s)[0]

    mixed, split = ("mixed",) * 4, ("prefill", "prefill", "decode", "decode")
    for at_s in (0.0, 10.0, 20.0, 30.0):
        working = decided(at_s, at_s, *mixed)
    assert working.prefilling == {"a": 2}
    for at_s in (70.0, 80.0, 90.0, 100.0, 110.0):
        quiet = decided(at_s, 30.0, *split)
    assert quiet.prefilling == {}
    assert quiet.model.pools[0].prefilling == 2
    assert decided(700.0, 30.0, *mixed).model.pools[0].prefilling == 0
    assert scaler.report(700.0).models[0].pools[0].prefilling == 0


def test_replicas_that_compute_prompts_hold_no_answers() -> None:
    state = replace(pool(ready=4, prefilling=2), least=0)
    answering = replace(model(state), generating=150, tpot_slo_s=0.1)
    # 100 answers at a time in each: two that answer are needed, beside the two that do not.
    assert holding(answering, {"a": 1}) == {"a": 2}
