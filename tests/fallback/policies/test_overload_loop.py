"""The overload policy in a closed loop with a queue: the SLO holds, the teacher stays busy, and
after the rush nobody spills any more."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from fallback.policies import OverloadPolicy
from weir.settings.fallback import OverloadSettings

SLO_S, SERVICE_S, RUSH_S, CALM_S = 2.0, 1 / 15, 30.0, 20.0
SETTINGS = OverloadSettings(enter_at=0.5, leave_at=0.2, dwell_s=1.0)


@dataclass
class Clock:
    now_s: float = 0.0

    def __call__(self) -> float:
        return self.now_s


@dataclass
class Result:
    first_token_s: list[float]
    spilled_at_s: list[float]
    turned_on_at_s: list[float]
    busy_in_rush_s: float = 0.0


def run(seed: int, times_capacity: float, error: float) -> Result:
    """One server of first-come requests; ``error``: what predictions are wrong by, as a factor."""
    rng, clock = random.Random(seed), Clock()
    policy = OverloadPolicy(SETTINGS, {"interactive": SLO_S}, clock)
    result, waiting = Result([], [], []), deque[float]()
    free_at_s, patience_s = 0.0, policy.patience_s("interactive")
    assert patience_s is not None
    arrival_s, was_on = 0.0, False
    while arrival_s < RUSH_S + CALM_S:
        rate = times_capacity if arrival_s < RUSH_S else 0.3
        arrival_s += rng.expovariate(rate / SERVICE_S)
        while waiting and max(free_at_s, waiting[0]) <= arrival_s:
            came_s = waiting.popleft()
            start_s = max(free_at_s, came_s)
            if start_s - came_s > patience_s:
                result.spilled_at_s.append(came_s + patience_s)
                continue
            free_at_s = start_s + SERVICE_S
            result.first_token_s.append(free_at_s - came_s)
            if start_s < RUSH_S:
                result.busy_in_rush_s += SERVICE_S
        clock.now_s = arrival_s
        left_s = max(0.0, free_at_s - arrival_s)
        predicted_s = error * (left_s + SERVICE_S * len(waiting))
        spills = policy.judge("interactive", predicted_s)
        if policy.spilling("interactive") and not was_on:
            result.turned_on_at_s.append(arrival_s)
        was_on = policy.spilling("interactive")
        if spills:
            result.spilled_at_s.append(arrival_s)
        else:
            waiting.append(arrival_s)
    return result


@given(seed=st.integers(0, 10**6), error=st.floats(0.3, 1.5))
@settings(max_examples=25, deadline=None)
def test_three_times_the_capacity(seed: int, error: float) -> None:
    result = run(seed, 3.0, error)
    assert max(result.first_token_s) <= SLO_S
    assert result.busy_in_rush_s >= 0.6 * RUSH_S, "spilling must not idle the teacher"
    assert len(result.turned_on_at_s) <= 1 + RUSH_S / SETTINGS.dwell_s
    assert max(result.spilled_at_s) < RUSH_S + 5, "after the rush the teacher has everything again"


def test_half_the_capacity_spills_nothing() -> None:
    assert run(1, 0.5, 1.0).spilled_at_s == []
