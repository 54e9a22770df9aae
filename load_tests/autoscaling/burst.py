"""How soon requests are in time again after ten times the load came from one moment to the next."""

from __future__ import annotations

import numpy as np

from load_tests.autoscaling.contenders import Contender
from load_tests.autoscaling.days import Days, first_replicas, world_of
from load_tests.autoscaling.fluid import Fluid
from load_tests.autoscaling.traces import Ticks
from weir.autoscaling.registry import build_policy

_TICK_S, _HOURS = 15.0, 3
_AT_S, _LONG_S = 3600.0, 600.0
_CALM_S = 300.0


def burst_ticks(days: Days) -> Ticks:
    """Three hours of the tuning week's mean, tenfold for ten minutes after the first."""
    count = int(_HOURS * 3600 / _TICK_S)
    factor = np.ones(count)
    factor[int(_AT_S / _TICK_S) : int((_AT_S + _LONG_S) / _TICK_S)] = 10.0
    mean = [float(column.mean()) * _TICK_S / days.tuning.tick_s for column in days.tuning.columns]
    return Ticks(_TICK_S, *(factor * each for each in mean))


def recovery_s(contender: Contender, params: dict[str, object], days: Days, seed: int) -> float:
    """Seconds from the burst's first moment until 99 % are in time, and stay so for five minutes;
    to the end of the run where that does not come."""
    ticks = burst_ticks(days)
    world = world_of(contender, params, days.kinds, seed)
    asked = {name: value for name, value in params.items() if name != "gated"}
    policy = build_policy(contender.policy, asked)
    found = Fluid(world, policy, ticks, every_s=_TICK_S).run(first_replicas(world.pools[0], ticks))
    late_s = _AT_S
    for moment in found.moments:
        if moment.at_s >= _AT_S and moment.met < 0.99:
            if moment.at_s > late_s + _CALM_S:
                break
            late_s = moment.at_s + _TICK_S
    return late_s - _AT_S
