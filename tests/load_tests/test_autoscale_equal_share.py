"""Costs read off at the same share in time."""

import pytest

from load_tests.autoscaling.equal_share import Point, at_share, compare_equal, equal_marks


def points(*figures):
    return [Point(0.9 + number / 100, usd, met, 0.0) for number, (met, usd) in enumerate(figures)]


def row(system, usd, ours=False, spot=False, reason="", bound=False):
    told = {"table": "t", "system": system, "usd_at_share": usd, "ours": ours, "spot": spot}
    return told | {"is_bound": bound} | ({"reason": reason} if reason else {})


def test_cost_is_on_the_line_between_the_two_points_around_the_share():
    found = at_share(points((0.98, 100.0), (0.988, 110.0), (0.992, 130.0)), 0.99)
    assert found.usd == pytest.approx(120.0)


def test_a_share_that_is_passed_twice_counts_where_it_is_kept_from_then_on():
    found = at_share(points((0.98, 90.0), (0.991, 95.0), (0.989, 100.0), (0.991, 110.0)), 0.99)
    assert found.usd == pytest.approx(105.0)


@pytest.mark.parametrize(
    ("shares", "reason"),
    [((0.95, 0.98), "at most 98.00%"), ((0.992, 0.98), "at most 99.20%")],
)
def test_a_share_that_is_not_kept_by_the_last_step_has_no_cost(shares, reason):
    found = at_share(points(*((share, 100.0) for share in shares)), 0.99)
    assert found.usd is None
    assert reason in found.reason


def test_what_keeps_it_at_every_step_costs_at_most_so_much():
    found = at_share(points((0.992, 120.0), (0.991, 100.0), (0.995, 140.0)), 0.99)
    assert (found.usd, found.bound) == (100.0, True)
    assert "at least 99.10%" in found.reason


def test_a_bound_counts_against_weir_and_not_for_it():
    kept = "at least 99.1% at every step"
    table = [
        row("weir", 50.0, ours=True, bound=True, reason=kept),
        row("a", 100.0),
        row("b", 10.0, bound=True, reason=kept),
    ]
    compare_equal(table)
    assert table[0]["over_best_peer"] == 0.5
    marks = {mark.name: mark for mark in equal_marks(table, {"weir": 0.6})}
    assert (marks["t: weir over a"].value, marks["t: weir over a"].reason) == (0.5, f"weir: {kept}")
    assert marks["t: weir over b"].value is None


def test_the_batch_work_that_is_late_is_the_worse_of_both():
    below, above = Point(0.97, 100.0, 0.98, 0.02), Point(0.99, 120.0, 0.995, 0.0)
    assert at_share([below, above], 0.99).late_batch == 0.02


def test_rows_are_compared_with_the_cheapest_peer_that_has_a_cost():
    table = [
        row("weir", 50.0, ours=True),
        row("a", 100.0),
        row("b", 80.0),
        row("c, by hand", 10.0),
        row("d", None, reason="at most 98% in time"),
        row("s", 20.0, spot=True),
    ]
    compare_equal(table)
    assert table[0]["over_best_peer"] == pytest.approx(50 / 80)
    assert table[5]["over_best_peer"] == 1.0
    marks = {mark.name: mark for mark in equal_marks(table, {"weir": 0.6, "weir, spot": 0.4})}
    assert marks["t: weir over a"].met
    assert not marks["t: weir over b"].met
    assert marks["t: weir over d"].value is None
    assert marks["t: weir over d"].reason == "d: at most 98% in time"
    assert len(marks) == 3
