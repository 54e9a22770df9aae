"""Capacity and start-up time, learned from what replicas did."""

from __future__ import annotations

import random

import pytest

from weir.autoscaling.capacity import CapacityFit, Observed, StartClock, StartUp
from weir.autoscaling.report import Capacity

PRIOR = Capacity(4000.0, 1000.0, 0.8)
STEP_S, PROMPT_S, ANSWER_S = 0.008, 0.0001, 0.0004


def window(rng: random.Random, streams: int, prompts_per_step: float) -> Observed:
    """What an engine of known costs does in a window, with 3 % of noise."""
    steps = rng.randint(100, 400)
    decode, prefill = steps * streams, steps * prompts_per_step
    took = steps * STEP_S + prefill * PROMPT_S + decode * ANSWER_S
    return Observed(steps, prefill, decode, took * rng.uniform(0.97, 1.03))


def learned(count: int, seed: int = 1) -> CapacityFit:
    rng, fit = random.Random(seed), CapacityFit.assumed(PRIOR)
    for _ in range(count):
        fit = fit.learned(window(rng, rng.randint(1, 32), rng.uniform(0, 200)))
    return fit


@pytest.mark.parametrize("seed", range(5))
def test_the_true_costs_are_found(seed: int) -> None:
    step, prompt, answer = learned(300, seed).seconds
    assert step == pytest.approx(STEP_S, rel=0.35)
    assert prompt == pytest.approx(PROMPT_S, rel=0.15)
    assert answer == pytest.approx(ANSWER_S, rel=0.2)


def test_its_error_becomes_that_of_the_noise() -> None:
    early, late = learned(3), learned(300)
    assert early.error > 0.1
    assert late.error < 0.04


def test_capacity_keeps_tpot_and_places() -> None:
    fit = learned(300)
    free = fit.capacity(0.1, 256)
    assert free.decode_tokens_per_s == pytest.approx(230 / 0.1, rel=0.2)
    assert fit.capacity(0.1, 8).decode_tokens_per_s == pytest.approx(8 / 0.0112, rel=0.2)
    assert fit.capacity(0.02, 256).decode_tokens_per_s < free.decode_tokens_per_s
    assert free.prefill_tokens_per_s == pytest.approx(1 / (PROMPT_S + STEP_S / 2048), rel=0.15)


def test_without_observations_it_is_near_what_was_assumed() -> None:
    capacity = CapacityFit.assumed(PRIOR).capacity(0.1, 256)
    assert capacity.prefill_tokens_per_s == pytest.approx(4000.0, rel=0.1)
    assert capacity.decode_tokens_per_s > 500.0


def test_what_is_never_seen_stays_as_assumed_and_nothing_explodes() -> None:
    fit = CapacityFit.assumed(PRIOR)
    for _ in range(5000):
        fit = fit.learned(Observed(200, 0, 200 * 10, 200 * (STEP_S + 10 * ANSWER_S)))
    capacity = fit.capacity(0.1, 256)
    assert 1000.0 < capacity.prefill_tokens_per_s < 10_000.0
    assert all(abs(each) < 1.0 for each in fit.covariance)
    assert fit.error < 0.01


def test_a_window_with_hardly_any_steps_says_nothing() -> None:
    fit = CapacityFit.assumed(PRIOR)
    assert fit.learned(Observed(3, 1000, 3, 5.0)) is fit
    assert fit.learned(Observed(100, 0, 100, 0.0)) is fit


def test_start_up_time_is_learned_with_its_spread() -> None:
    start = StartUp(120.0)
    assert start.usual_s == 120.0
    for _ in range(20):
        start = start.learned(10.0)
    assert start.usual_s == pytest.approx(10.0, abs=1.5)
    assert start.learned(40.0).usual_s > start.usual_s + 3.0


def test_replicas_that_come_are_matched_with_those_asked_for() -> None:
    clock = StartClock()
    clock.asked(100.0, 2)
    clock.asked(105.0, 1)
    clock.asked(106.0, -1)
    assert clock.came([112.0]) == [12.0]
    assert clock.came([113.0, 114.0]) == [13.0]
