"""What one replica does at a load, from the planner's roofline: a table that the fluid model reads.

``load`` is the rate over the saturated one. The table has TTFT's and TPOT's shares within limits,
their 90th percentiles, streams and KV use at loads from 0 to 1.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass

from weir.autoscaling.report import Capacity
from weir.planner.serving import (
    Engine,
    Lengths,
    Slo,
    State,
    balance,
    best_rate,
    mean_wait_s,
    saturated,
)

_POINTS = 200


@dataclass(frozen=True, slots=True)
class LoadRow:
    """At one load of a replica. ``met``: of requests, within TTFT and TPOT."""

    load: float
    ttft_p90_s: float
    tpot_s: float
    ttft_met: float
    tpot_met: float
    streams: float

    @property
    def met(self) -> float:
        """Within both limits."""
        return self.ttft_met * self.tpot_met


@dataclass(frozen=True, slots=True)
class ReplicaTable:
    """``saturated_per_s``: requests per second of a replica that always has work; ``room``: streams
    that fit; ``capacity``: the same as an autoscaling policy is told."""

    rows: tuple[LoadRow, ...]
    saturated_per_s: float
    room: int
    capacity: Capacity

    def at(self, load: float) -> LoadRow:
        """The row at or above a load."""
        number = min(len(self.rows) - 1, bisect_right(self.rows, load, key=lambda row: row.load))
        return self.rows[number]


def replica_table(engine: Engine, lengths: Lengths, slo: Slo) -> ReplicaTable:
    """The table of one kind of replica.

    Raises:
        ValueError: such a replica cannot serve even one request within the limits.
    """
    most = saturated(engine, lengths)
    best = best_rate(engine, lengths, slo)
    if best is None:
        raise ValueError("a replica keeps the limits at no rate")
    rows = []
    for number in range(1, _POINTS + 1):
        load = number / _POINTS
        state = balance(engine, lengths, load * most, 0.9)
        if state is None:
            break
        rows.append(_row(load, state, lengths, slo))
    rows.append(LoadRow(1.0, math.inf, math.inf, 0.0, 0.0, float(engine.room(lengths))))
    capacity = _capacity(engine, lengths, most, best.rate_per_s / most)
    return ReplicaTable(tuple(rows), most, engine.room(lengths), capacity)


def _row(load: float, state: State, lengths: Lengths, slo: Slo) -> LoadRow:
    """Shares by the same queue as the planner's: an exponential tail."""
    waits_s = mean_wait_s(state.load / state.rate_per_s, state.load, lengths.variation)
    own_s = state.ttft_mean_s - state.load * waits_s
    left_s = slo.ttft_s - own_s
    late = 1.0 if left_s <= 0 else state.load * math.exp(-left_s / max(waits_s, 1e-9))
    return LoadRow(
        load,
        state.ttft_tail_s,
        state.tpot_s,
        1 - min(1.0, late),
        1.0 if state.tpot_s <= slo.tpot_s else 0.0,
        state.streams,
    )


def _capacity(engine: Engine, lengths: Lengths, most: float, usable: float) -> Capacity:
    """Rates of prompts alone and of answers alone, scaled so that the mean mix takes all the time
    at saturation."""
    line = engine.roofline
    budget = engine.batched_tokens
    prompts = budget / line.step(budget, 0, 0, lengths.computed / 2).total_s
    streams = engine.room(lengths)
    answers = streams / line.step(0, streams, lengths.context).total_s
    seconds = most * (lengths.computed / prompts + lengths.output / answers)
    return Capacity(prompts * seconds, answers * seconds, usable)
