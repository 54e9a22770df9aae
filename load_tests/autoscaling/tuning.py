"""Choosing a policy's parameters by one week, with a margin that the same week chooses.

A combination of parameters that had 99 % of a week in time has less in the next one half of the
time. So the share is taken less a margin, in standard errors over days; and how large that has to
be is not known beforehand. It is chosen by leaving out one day at a time: each margin picks a
combination by the other days, and is judged by the days that were left out, all together. The least
margin that keeps the limit there is used, for each policy by itself. Only the tuning week is looked
at.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from load_tests.autoscaling.fleet import Outcome

#: Margins that are tried, in standard errors over days.
MARGINS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0)
_DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Day:
    """One day of one combination: what it cost, urgent requests, and those of them in time."""

    usd: float
    urgent: float
    met: float


@dataclass(frozen=True, slots=True)
class Tried:
    """One combination and what it came to over the tuning week."""

    params: dict[str, Any]
    usd: float
    met: float
    late_batch: float
    days: tuple[Day, ...]


def days_of(found: Outcome) -> tuple[Day, ...]:
    """The days of a run; what the student cost goes by requests."""
    sums: dict[int, list[float]] = {}
    for moment in found.moments:
        one = sums.setdefault(int(moment.at_s // _DAY_S), [0.0, 0.0, 0.0])
        one[0] += moment.usd_per_hour
        one[1] += moment.urgent
        one[2] += moment.urgent_met
    # A tick of each has the same length, so parts of the sum are parts of the cost.
    paid = sum(one[0] for one in sums.values()) or 1.0
    return tuple(Day(found.usd * usd / paid, urgent, met) for usd, urgent, met in sums.values())


def careful_share(days: Sequence[Day], margin: float) -> float:
    """The share in time, less ``margin`` standard errors of the mean over days."""
    urgent = sum(day.urgent for day in days)
    share = sum(day.met for day in days) / urgent if urgent else 1.0
    shares = [day.met / day.urgent for day in days if day.urgent]
    if len(shares) < 2:
        return share
    return share - margin * statistics.stdev(shares) / math.sqrt(len(shares))


def chosen(
    tried: Sequence[Tried], least: float, late: float, margin: float, without: int | None = None
) -> Tried:
    """The cheapest that has ``least`` in time by the margin and at most ``late`` batch work late;
    without one, the nearest to it. ``without``: that day is not looked at."""
    seen = [
        (one, [day for number, day in enumerate(one.days) if number != without]) for one in tried
    ]
    good = [
        (one, days)
        for one, days in seen
        if careful_share(days, margin) >= least and one.late_batch <= late
    ]
    if good:
        return min(good, key=lambda pair: sum(day.usd for day in pair[1]))[0]
    return max(seen, key=lambda pair: careful_share(pair[1], margin) - pair[0].late_batch)[0]


def chosen_margin(tried: Sequence[Tried], least: float, late: float) -> float:
    """The least margin whose choices keep ``least`` on the days that they have not seen; where none
    does, the largest."""
    for margin in MARGINS:
        urgent = met = 0.0
        for number in range(len(tried[0].days)):
            day = chosen(tried, least, late, margin, number).days[number]
            urgent, met = urgent + day.urgent, met + day.met
        if not urgent or met / urgent >= least:
            return margin
    return MARGINS[-1]
