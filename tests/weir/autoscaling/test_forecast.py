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


def test_of_kinds_that_replace_each_other_only_the_dearest_need_is_held():
    groups = [{"large": 6.0, "small": 4.0}]
    _, kept = steadied((), 0.0, {"large": 4, "small": 1}, 600.0, groups=groups)
    held, kept = steadied(kept, 30.0, {"large": 2, "small": 3}, 600.0, groups=groups)
    assert held == {"large": 4, "small": 1}
    more, _ = steadied(kept, 60.0, {"large": 5, "small": 0}, 600.0, groups=groups)
    assert more == {"large": 5, "small": 0}


def test_a_prefill_and_a_decode_pool_are_held_by_themselves():
    groups = [{"p": 1.0}, {"d": 1.0}]
    _, kept = steadied((), 0.0, {"p": 5, "d": 1}, 600.0, groups=groups)
    held, _ = steadied(kept, 30.0, {"p": 1, "d": 3}, 600.0, groups=groups)
    assert held == {"p": 5, "d": 3}


def test_an_old_need_fades():
    need = {"a": 2}
    _, kept = steadied((), 0.0, {"a": 10}, 100.0, 100.0)
    seen = [steadied(kept, now, need, 100.0, 100.0)[0]["a"] for now in (99, 150, 175, 199)]
    assert seen == [10, 5, 3, 2]
    assert steadied(kept, 201.0, need, 100.0, 100.0)[0] == need


@given(st.integers(0, 50), st.integers(0, 300), st.integers(0, 300))
def test_constant_need_changes_nothing(need, window, fade):
    kept = ()
    for now in range(0, 900, 30):
        targets, kept = steadied(kept, now, {"a": need}, window, fade)
        assert targets == {"a": need}
