"""How parameters are chosen by one week, and how the margin is."""

import pytest

from load_tests.autoscaling.fleet import Moment, Outcome
from load_tests.autoscaling.tuning import (
    MARGINS,
    Day,
    Tried,
    careful_share,
    chosen,
    chosen_margin,
    days_of,
)


def tried(name, usd, shares, late=0.0):
    days = tuple(Day(usd / len(shares), 100.0, 100.0 * share) for share in shares)
    return Tried({"name": name}, usd, sum(shares) / len(shares), late, days)


CALM = [0.9905] * 7
#: The same mean as is asked for, with a bad day in it.
UNEVEN = [0.9995] * 6 + [0.934]


def test_the_cheapest_that_keeps_the_limit_is_chosen():
    grid = [tried("dear", 20.0, CALM), tried("cheap", 10.0, CALM), tried("late", 5.0, [0.98] * 7)]
    assert chosen(grid, 0.99, 0.01, 0.0).params["name"] == "cheap"


def test_batch_work_that_is_late_excludes():
    grid = [tried("dear", 20.0, CALM), tried("cheap", 10.0, CALM, late=0.2)]
    assert chosen(grid, 0.99, 0.01, 0.0).params["name"] == "dear"


def test_without_any_that_keeps_it_the_nearest_is_chosen():
    grid = [tried("near", 20.0, [0.985] * 7), tried("far", 10.0, [0.9] * 7)]
    assert chosen(grid, 0.99, 0.01, 1.0).params["name"] == "near"


def test_a_margin_counts_uneven_days():
    assert careful_share(tried("a", 1.0, CALM).days, 3.0) == pytest.approx(0.9905)
    assert careful_share(tried("a", 1.0, UNEVEN).days, 1.0) < 0.985


def test_no_margin_where_days_are_alike():
    assert chosen_margin([tried("a", 1.0, CALM), tried("b", 2.0, [0.999] * 7)], 0.99, 0.01) == 0.0


def test_the_margin_is_the_least_that_holds_on_days_that_were_not_seen():
    """Each cheap one has one bad day, which the other six do not tell of: only that it is uneven on
    them, too."""
    wave = [0.9945 + (0.004 if day % 2 else -0.004) for day in range(7)]
    cheap = [
        tried(f"cheap-{bad}", 10.0, [0.94 if day == bad else wave[day] for day in range(7)])
        for bad in range(7)
    ]
    grid = [*cheap, tried("safe", 20.0, [0.9960] * 7)]
    margin = chosen_margin(grid, 0.99, 0.01)
    assert margin > 0

    def unseen(margin):
        days = [chosen(grid, 0.99, 0.01, margin, day).days[day] for day in range(7)]
        return sum(day.met for day in days) / sum(day.urgent for day in days)

    assert unseen(margin) >= 0.99
    assert all(unseen(less) < 0.99 for less in MARGINS if less < margin)


def test_the_last_margin_where_none_keeps_the_limit():
    assert chosen_margin([tried("a", 1.0, [0.9] * 7)], 0.99, 0.01) == MARGINS[-1]


def test_the_days_of_a_run_have_its_cost():
    found = Outcome(usd=90.0)
    for hour in range(72):
        busy = 2.0 if hour < 24 else 1.0
        found.moments.append(Moment(3600.0 * hour, usd_per_hour=busy, urgent=10, urgent_met=9))
    days = days_of(found)
    assert [day.usd for day in days] == pytest.approx([45.0, 22.5, 22.5])
    assert [(day.urgent, day.met) for day in days] == 3 * [(240, 216)]
