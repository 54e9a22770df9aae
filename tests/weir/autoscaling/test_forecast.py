"""What is foretold, and the margin that its own past asks for."""

from hypothesis import given
from hypothesis import strategies as st

from weir.autoscaling.forecast import foretell
from weir.autoscaling.report import Sample
from weir.autoscaling.steady import steadied


def history(values, spacing_s=120.0):
    return [Sample(n * spacing_s, v, v / 5) for n, v in enumerate(values)]


def test_nothing_known_is_the_present():
    assert foretell([], 300, 0, 0.05, 3600).computed_tokens_per_s == 0
    found = foretell(history([7.0]), 300, 0, 0.05, 3600)
    assert (found.computed_tokens_per_s, found.upper, found.error) == (7.0, 1.0, None)


def test_constant_demand_needs_no_margin():
    found = foretell(history([100.0] * 200), 360, 0, 0.01, 7200)
    assert (found.computed_tokens_per_s, found.upper, found.error) == (100.0, 1.0, 0.0)


def test_jumps_ask_for_a_margin():
    values = [100.0, 100.0, 100.0, 180.0] * 50
    found = foretell(history(values), 360, 0, 0.05, 7200)
    assert 1.7 < found.upper <= 1.9


def test_a_season_ago_says_what_comes():
    day = [100.0] * 30 + [400.0] * 10 + [100.0] * 60
    found = foretell(history(day + day[:29]), 360, 100 * 120.0, 0.05, 600)
    assert found.computed_tokens_per_s == 300.0  # threefold is the most that is believed


@given(st.lists(st.floats(0, 1e6), min_size=2, max_size=60), st.integers(1, 10))
def test_it_is_never_negative_nor_without_a_number(values, ahead):
    found = foretell(history(values), ahead * 120.0, 20 * 120.0, 0.05, 3600)
    assert found.computed_tokens_per_s >= 0
    assert found.upper >= 1


@given(st.lists(st.integers(0, 50), min_size=1, max_size=80), st.integers(1, 20))
def test_hysteresis_is_the_highest_need_of_the_window(needs, window):
    kept = ()
    for now, need in enumerate(needs):
        targets, kept = steadied(kept, float(now), {"a": need}, float(window))
        assert targets["a"] == max(needs[max(0, now - window + 1) : now + 1])
