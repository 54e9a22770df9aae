"""Evidence: right however often it is looked at, and quick where there is something to find."""

from __future__ import annotations

import math

import numpy as np
import pytest

from weir.rollouts.evidence import Evidence, TwoSided


def _ever_refuted(chance: float, bound: float, alpha: float, seed: int, count: int = 2000) -> bool:
    rng = np.random.default_rng(seed)
    evidence = Evidence(bound, 0.0)
    for value in (rng.random(count) < chance).astype(float):
        evidence.observe([value])
        if evidence.refutes(alpha):
            return True
    return False


def test_a_true_claim_is_hardly_ever_refuted_though_it_is_looked_at_each_time() -> None:
    """At most 5 % by the theorem; twice that allows for chance among 200."""
    wrong = sum(_ever_refuted(0.1, 0.1, 0.05, seed, 500) for seed in range(200))
    assert wrong <= 20


def test_a_false_claim_is_refuted() -> None:
    assert all(_ever_refuted(0.2, 0.1, 0.01, seed) for seed in range(20))


def test_batches_say_what_single_observations_say() -> None:
    values = list(np.random.default_rng(1).random(100))
    one, many = Evidence(0.4, 0.0), Evidence(0.4, 0.0)
    for value in values:
        one.observe([value])
    many.observe(values[:30])
    many.observe([])
    many.observe(values[30:])
    assert one.log == pytest.approx(many.log)


def test_the_capital_is_what_a_gambler_would_have() -> None:
    """One share, by hand: a win of 1 against a bound of 0.5 at the share 0.95 / 0.5."""
    evidence = Evidence(0.5, 0.0)
    evidence.observe([1.0])
    shares = [0.95 * 2.0**-k / 0.5 for k in range(12)]
    assert evidence.log == pytest.approx(math.log(sum(1 + s * 0.5 for s in shares) / 12))


def test_numbers_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match=r"from 0\.0, got -1\.0"):
        Evidence(0.5, 0.0).observe([0.2, -1.0])
    with pytest.raises(ValueError, match="got nan"):
        Evidence(0.5, 0.0).observe([float("nan")])
    with pytest.raises(ValueError, match="above the lowest value"):
        Evidence(0.0, 0.0)


def test_both_directions() -> None:
    low, high = TwoSided(0.5, 0.0, 1.0), TwoSided(0.5, 0.0, 1.0)
    low.observe([0.0, 1.0, 0.0] * 60)
    high.observe([1.0, 1.0, 0.0] * 60)
    assert low.mean == pytest.approx(1 / 3)
    assert low.log_below > 3.0 > 0.0 > low.log_above
    assert high.log_above > 3.0 > 0.0 > high.log_below
    assert TwoSided(0.5, 0.0, 1.0).mean is None
