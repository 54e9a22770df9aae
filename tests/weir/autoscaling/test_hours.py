"""Work that may wait is done in the cheapest hours before its deadline."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

import weir.autoscaling.policies  # noqa: F401 - registers them
from tests.weir.autoscaling.fleets import LARGE, SMALL, model
from weir.autoscaling.hours import HOUR_S, hours_until, pace
from weir.autoscaling.programme import Risk, Work
from weir.autoscaling.registry import build_policy
from weir.autoscaling.report import Backlog, Demand, Window

RISK = Risk(keep=0.0)
#: A third of the price from ten in the evening until six.
NIGHT = replace(LARGE, usd_by_hour=tuple(1.0 if h >= 22 or h < 6 else 3.0 for h in range(24)))
NOTHING = Work(0.0, 0.0)
#: What one replica does in two hours.
SOME = Work(2e8, 2e7)


def at(hour: float) -> float:
    return 86_400.0 * 20_000 + hour * HOUR_S


@given(
    st.floats(0, 3e5),
    st.floats(60, 6e5),
)
def test_the_seconds_of_all_hours_are_those_until_then(now_s, within_s):
    found = hours_until(now_s, within_s)
    assert sum(found.values()) == pytest.approx(within_s)
    assert set(found) <= set(range(24))


def test_the_same_price_all_day_is_an_even_pace():
    assert pace((LARGE,), SOME, 7200.0, at(3), NOTHING, RISK) == pytest.approx(1 / 7200)
    flat = replace(LARGE, usd_by_hour=(3.0,) * 24)
    assert pace((flat,), SOME, 7200.0, at(3), NOTHING, RISK) == pytest.approx(1 / 7200)


def test_it_is_left_for_the_night_and_spread_over_it():
    assert pace((NIGHT,), SOME, 24 * HOUR_S, at(12), NOTHING, RISK) == 0.0
    night = pace((NIGHT,), SOME, 24 * HOUR_S, at(22), NOTHING, RISK)
    assert night == pytest.approx(1 / (8 * HOUR_S))


def test_it_does_not_wait_for_a_night_that_comes_too_late():
    assert pace((NIGHT,), SOME, 4 * HOUR_S, at(12), NOTHING, RISK) == pytest.approx(1 / 4 / HOUR_S)


def test_what_the_night_has_no_room_for_begins_before():
    few = replace(NIGHT, most=1)
    more = Work(20 * SOME.computed_tokens_per_s, 20 * SOME.output_tokens_per_s)
    assert pace((few,), more, 24 * HOUR_S, at(12), NOTHING, RISK) > 0
    assert pace((NIGHT,), more, 24 * HOUR_S, at(12), NOTHING, RISK) == 0.0
    busy = Work(0.9 * 0.8 * 200 * LARGE.capacity.prefill_tokens_per_s, 0.0)
    half = Work(200 * SOME.computed_tokens_per_s, 0.0)
    assert pace((NIGHT,), half, 24 * HOUR_S, at(12), NOTHING, RISK) == 0.0
    assert pace((NIGHT,), half, 24 * HOUR_S, at(12), busy, RISK) > 0


def test_the_end_of_a_night_is_not_filled_with_what_is_left():
    """Nobody starts replicas for five minutes."""
    rest = pace((NIGHT,), SOME, 24 * HOUR_S, at(5.9), NOTHING, RISK)
    assert rest <= 1 / 1800


def test_the_cheapest_pool_of_each_hour_counts():
    """By day the small ones are cheaper than at night."""
    by_day = replace(SMALL, usd_by_hour=tuple(0.1 if 8 <= h < 10 else 9.0 for h in range(24)))
    assert pace((NIGHT, by_day), SOME, 24 * HOUR_S, at(23), NOTHING, RISK) == 0.0
    assert pace((NIGHT, by_day), SOME, 24 * HOUR_S, at(8), NOTHING, RISK) > 0


@given(st.floats(0.5, 30), st.floats(0, 24), st.integers(1, 20))
def test_what_can_be_done_in_time_is(window_h, begin_h, replicas):
    """Whoever keeps to the pace ends in time, if all replicas together could with some to spare."""
    pool = replace(NIGHT, most=replicas)
    time = 0.8 * replicas * window_h * HOUR_S
    work, left, begin_s = 0.7 * time * pool.capacity.prefill_tokens_per_s, 1.0, at(begin_h)
    step_s, now_s = 60.0, 0.0
    while now_s < window_h * HOUR_S and left > 1e-6:
        tokens = Work(left * work, 0.0)
        part = pace((pool,), tokens, window_h * HOUR_S - now_s, begin_s + now_s, NOTHING, RISK)
        most = 0.8 * replicas * pool.capacity.prefill_tokens_per_s / work
        left -= step_s * min(most, part * left)
        now_s += step_s
    assert left < 0.03


def with_batches(*windows, pools=(NIGHT,), urgent=3e4):
    return replace(model(urgent, pools), backlog=Backlog(1000, windows[0].left_s, windows))


def decide(state, now_s, before=None):
    policy = build_policy("weir", {"down_after_s": 1800.0, "keep": 0.0})
    return policy.decide(state, now_s, before)


def test_replicas_are_got_for_batches_at_night_and_go_with_it():
    job = Window(23 * HOUR_S, 3e9, 6e8)
    urgent = decide(model(3e4, (NIGHT,)), at(12)).targets["large"]
    day = decide(with_batches(job), at(12))
    assert day.targets["large"] == urgent
    assert day.explanation.seen["tokens_left_for_cheaper_hours"] == pytest.approx(3.6e9)
    night = decide(with_batches(replace(job, left_s=13 * HOUR_S)), at(22), day.state)
    assert night.targets["large"] > urgent + 2
    # The hysteresis of urgent work would keep them for half an hour of the dear morning.
    late = replace(job, left_s=20 * HOUR_S)
    morning = decide(with_batches(late), at(30.01), night.state)
    assert morning.targets["large"] == urgent


def test_urgent_needs_are_kept_for_a_while_all_the_same():
    high = decide(model(3e5, (NIGHT,)), at(21.9))
    job = Window(23 * HOUR_S, 1e6, 1e6)
    low = decide(with_batches(job), at(22.1), high.state)
    assert low.targets == high.targets


def test_batches_get_replicas_where_prices_never_change():
    job = Window(2 * HOUR_S, 3e9, 6e8)
    without = decide(model(3e4), at(12)).targets["large"]
    assert decide(with_batches(job, pools=(LARGE,)), at(12)).targets["large"] > without + 5


def test_what_ends_before_the_night_is_not_left_for_it():
    soon, all_of_it = Window(2 * HOUR_S, 1.5e9, 3e8), Window(23 * HOUR_S, 3e9, 6e8)
    urgent = decide(model(3e4, (NIGHT,)), at(12)).targets["large"]
    found = decide(with_batches(soon, all_of_it), at(12))
    assert found.targets["large"] == decide(with_batches(soon), at(12)).targets["large"] > urgent


def test_lines_that_wait_at_gateways_may_wait_for_the_night_too():
    patient = Demand(waiting_tokens=3e9, waiting_output_tokens=6e8, deferrable_s=23 * HOUR_S)
    state = model(3e4, (NIGHT,))
    state = replace(state, classes={**state.classes, "batch": patient})
    assert decide(state, at(12)).targets["large"] < decide(state, at(23)).targets["large"]
