"""Calibration figures on data whose calibration is known."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallback.evaluation.calibration import (
    Platt,
    auroc,
    expected_calibration_error,
    fit_platt,
    fit_threshold,
    kept,
    reliability,
)


def _drawn(n: int, truth: float | None, seed: int = 1) -> tuple[list[float], list[bool]]:
    """Confidences, and answers right with that probability, or with `truth` whatever it says."""
    rng = random.Random(seed)
    confidences = [rng.random() for _ in range(n)]
    right = [rng.random() < (c if truth is None else truth) for c in confidences]
    return confidences, right


def test_a_calibrated_source_has_no_error() -> None:
    bins = reliability(*_drawn(40_000, None))
    assert expected_calibration_error(bins) < 0.015
    assert sum(each.n for each in bins) == 40_000


def test_an_overconfident_source_has_the_error_it_was_given() -> None:
    right = [True] * 600 + [False] * 400
    bins = reliability([0.9] * 1000, right)
    assert expected_calibration_error(bins) == pytest.approx(0.3)
    assert [(each.n, each.accuracy) for each in bins] == [(1000, 0.6)]


def test_a_source_that_says_nothing_is_off_by_its_mean_distance() -> None:
    confidences, right = _drawn(40_000, 0.5)
    error = expected_calibration_error(reliability(confidences, right))
    assert error == pytest.approx(0.25, abs=0.02)  # E|U - 1/2| of a uniform U


def test_edges_belong_to_the_bin_below_and_the_ends_count() -> None:
    bins = reliability([0.0, 0.1, 0.1001, 1.0], [False, False, True, True])
    assert [(round(each.low, 1), each.n) for each in bins] == [(0.0, 2), (0.1, 1), (0.9, 1)]


def test_a_confidence_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match=r"0\.\.1"):
        reliability([1.2], [True])


def test_auroc_of_order_chaos_ties_and_nothing() -> None:
    assert auroc([1, 2, 3, 4], [False, False, True, True]) == 1.0
    assert auroc([4, 3, 2, 1], [False, False, True, True]) == 0.0
    assert auroc([5, 5, 5, 5], [False, True, False, True]) == 0.5
    assert auroc([1, 2], [True, True]) is None


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=25))
def test_auroc_is_the_share_of_pairs_in_order(pairs: list[tuple[int, bool]]) -> None:
    goods = [score for score, ok in pairs if ok]
    bads = [score for score, ok in pairs if not ok]
    found = auroc([float(score) for score, _ in pairs], [ok for _, ok in pairs])
    if not goods or not bads:
        assert found is None
        return
    won = sum((g > b) + 0.5 * (g == b) for g in goods for b in bads)
    assert found == pytest.approx(won / (len(goods) * len(bads)))


def test_platt_finds_the_curve_that_made_the_data() -> None:
    rng, truth = random.Random(4), Platt(2.0, 1.5)
    scores = [rng.uniform(-4, 1) for _ in range(20_000)]
    right = [rng.random() < truth.probability(score) for score in scores]
    found = fit_platt(scores, right)
    assert found.slope == pytest.approx(2.0, abs=0.15)
    assert found.offset == pytest.approx(1.5, abs=0.15)
    bins = reliability([found.probability(score) for score in scores], right)
    assert expected_calibration_error(bins) < 0.02


def test_platt_stays_finite_where_all_are_right() -> None:
    found = fit_platt([-0.1, -0.2, -0.3], [True, True, True])
    assert 0.7 < found.probability(-0.2) < 1


def test_a_threshold_keeps_its_promise_on_other_answers() -> None:
    fitted = fit_threshold(*_drawn(3000, None, seed=1), target=0.9)
    assert fitted is not None
    checked = kept(*_drawn(3000, None, seed=2), fitted)
    assert checked.accuracy is not None
    assert checked.accuracy >= 0.88
    assert checked.coverage == pytest.approx(0.2, abs=0.06)  # above 0.8 the mean is 0.9


def test_no_threshold_where_none_is_good_enough() -> None:
    assert fit_threshold([0.1, 0.5, 0.9] * 20, [False] * 60, 0.5) is None
    assert kept([0.1], [True], 5.0).accuracy is None


def test_equal_scores_stand_or_fall_together() -> None:
    scores, right = [1.0] * 50 + [0.0] * 50, [True] * 50 + [False] * 50
    assert fit_threshold(scores, right, 0.9) == 1.0
    assert fit_threshold(scores, right, 0.4) == 0.0
