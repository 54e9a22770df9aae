"""What one replica does at a load, measured with the request-level simulator: real engine steps,
the real router and admission. The fluid model reads the table.

``load`` is the rate of requests over the one at which the planner's roofline has no time left.
Step times are the planner's roofline,
evaluated for each step as it is composed. The analytic queue of the planner is not used: it takes
TPOT as one figure, and said that nine tenths of saturation keep 50 ms where the simulated engines
had half of their answers later than that.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from load_tests.report import percentile
from load_tests.sim.engine import EngineConfig
from load_tests.sim.figures import Slo
from load_tests.sim.request import SimRequest
from load_tests.sim.timing import StepTiming
from load_tests.sim.weir_system import WeirSystem, routing_profile
from load_tests.sim.world import FleetConfig, World
from load_tests.traces.schema import Trace, TraceRequest
from weir.autoscaling.report import Capacity
from weir.planner.roofline import Roofline
from weir.planner.serving import Engine, Lengths, saturated

BLOCK_TOKENS = 16
#: Tokens of a step. With vLLM's default of 8,192 one long prompt makes a step of half a second, and
#: every other answer of the replica late.
STEP_TOKENS = 512
_LOADS = (0.2, 0.4, 0.5, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 1.0, 1.2)
_RESOLUTION = 100
_MOST_LOAD = 1.2
_REPLICAS = 6
_REQUESTS = 4000
_LONGEST_S = 75.0
#: Share of requests in time at the load that policies may plan for.
_PLANNED = 0.99


@dataclass(frozen=True, slots=True)
class LoadRow:
    """Of one replica at one load. ``met``: share of requests within TTFT and TPOT."""

    load: float
    ttft_p90_s: float
    tpot_p90_s: float
    met: float
    streams: float


@dataclass(frozen=True, slots=True)
class ReplicaTable:
    """``rows``: at loads 0, 0.01, ... ``saturated_per_s``: requests per second at load 1;
    ``room``: streams that fit; ``capacity``: the same as a policy is told; ``points``: the
    loads that were measured."""

    rows: tuple[LoadRow, ...]
    saturated_per_s: float
    room: int
    capacity: Capacity
    points: tuple[LoadRow, ...] = ()

    def at(self, load: float) -> LoadRow:
        """The row at or above a load."""
        return self.rows[min(len(self.rows) - 1, math.ceil(load * _RESOLUTION - 1e-9))]


class RooflineTiming(StepTiming):
    """Exact for each step that has prompts in it; linear over runs of pure decode steps, where the
    roofline is linear too (weights and KV are read)."""

    __slots__ = ("_line",)
    _line: Roofline

    @classmethod
    def of(cls, line: Roofline) -> RooflineTiming:
        """From a roofline."""
        one = line.step(0, 1, 0).total_s
        sequence = (line.step(0, 101, 0).total_s - one) / 100
        context = (line.step(0, 1, 1000).total_s - one) / 1000
        timing = cls("roofline", one - sequence, 0.0, 0.0, sequence, context)
        object.__setattr__(timing, "_line", line)
        return timing

    def step_s(self, tokens: int, attended: float, sequences: int, context: float) -> float:
        """As :class:`StepTiming`'s."""
        held = context / sequences if sequences else 0.0
        behind = attended / tokens if tokens else 0.0
        return self._line.step(tokens, sequences, held, behind).total_s


def engine_config(engine: Engine, lengths: Lengths) -> EngineConfig:
    """The simulator's engine with the planner's room for KV."""
    line = engine.roofline
    each = line.card.request_bytes(math.ceil(lengths.context)) * line.kv_copies / lengths.context
    blocks = int(engine.kv_bytes / each / BLOCK_TOKENS)
    return EngineConfig(blocks, BLOCK_TOKENS, STEP_TOKENS, engine.most_streams, True, True)


def drawn_tokens(mean: float, variation: float, rng: random.Random, most: int) -> int:
    """A length: lognormal, with the standard deviation over the mean as given."""
    spread = math.log(1 + variation * variation)
    return min(most, max(1, round(rng.lognormvariate(math.log(mean) - spread / 2, spread**0.5))))


def drawn_request(at_s: float, lengths: Lengths, rng: random.Random) -> TraceRequest:
    """Prompts vary as ``lengths`` say, answers with a variation of 1."""
    return TraceRequest(
        at_s,
        drawn_tokens(lengths.prompt, lengths.variation, rng, 32_000),
        drawn_tokens(lengths.output, 1.0, rng, 4_000),
    )


def replica_table(engine: Engine, lengths: Lengths, ttft_s: float, tpot_s: float) -> ReplicaTable:
    """The table of one kind of replica."""
    slo = Slo(ttft_s, tpot_s)
    most = saturated(engine, lengths)
    points = [LoadRow(0.0, 0.0, 0.0, 1.0, 0.0)]
    for load in _LOADS:
        found, span_s = _simulated(engine, lengths, slo, load * most)
        points.append(_row(load, found, span_s, slo, points[-1]))
    usable = max(row.load for row in fine(points) if row.met >= _PLANNED)
    capacity = _capacity(engine, lengths, most, usable)
    return ReplicaTable(tuple(fine(points)), most, engine.room(lengths), capacity, tuple(points))


def _simulated(
    engine: Engine, lengths: Lengths, slo: Slo, each_per_s: float
) -> tuple[list[SimRequest], float]:
    """Requests of a fleet at a steady rate, and for how many seconds they arrived."""
    rate, rng, at_s = each_per_s * _REPLICAS, random.Random(11), 0.0
    span_s = min(_LONGEST_S, max(15.0, _REQUESTS / rate))
    requests = []
    while at_s < span_s:
        requests.append(drawn_request(at_s, lengths, rng))
        at_s += rng.expovariate(rate)
    config = FleetConfig(
        _REPLICAS, engine_config(engine, lengths), RooflineTiming.of(engine.roofline)
    )
    world = World(WeirSystem(routing_profile(slo)), config, 11)
    world.run_open(Trace("steady", "drawn", BLOCK_TOKENS, tuple(requests)))
    return world.requests, span_s


def _row(
    load: float, requests: Sequence[SimRequest], span_s: float, slo: Slo, below: LoadRow
) -> LoadRow:
    """Of those that arrived in the last three quarters; never better than at a lower load."""
    counted = [r for r in requests if r.arrival_s > span_s / 4]
    ttft = percentile([r.ttft_s for r in counted if r.ttft_s is not None], 90) or 0.0
    tpot = percentile([r.tpot_s for r in counted if r.tpot_s is not None], 90) or 0.0
    held_s = sum(r.finish_s - r.dispatched_s for r in counted if r.finish_s and r.dispatched_s)
    return LoadRow(
        load,
        max(ttft, below.ttft_p90_s),
        max(tpot, below.tpot_p90_s),
        min(below.met, sum(map(slo.met, counted)) / max(1, len(counted))),
        max(below.streams, held_s / (0.75 * span_s) / _REPLICAS),
    )


def fine(points: Sequence[LoadRow]) -> list[LoadRow]:
    """Rows at loads 0, 0.01, ...: straight lines between those that were measured."""
    rows, place = [], 0
    for number in range(round(_MOST_LOAD * _RESOLUTION) + 1):
        load = number / _RESOLUTION
        while place + 2 < len(points) and points[place + 1].load < load:
            place += 1
        a, b = points[place], points[place + 1]
        part = (load - a.load) / (b.load - a.load)
        rows.append(
            LoadRow(
                load,
                a.ttft_p90_s + part * (b.ttft_p90_s - a.ttft_p90_s),
                a.tpot_p90_s + part * (b.tpot_p90_s - a.tpot_p90_s),
                a.met + part * (b.met - a.met),
                a.streams + part * (b.streams - a.streams),
            )
        )
    return rows


def _capacity(engine: Engine, lengths: Lengths, most: float, usable: float) -> Capacity:
    """Rates of prompts alone and of answers alone, scaled so that the mean mix takes all the time
    at saturation."""
    line = engine.roofline
    prompts = STEP_TOKENS / line.step(STEP_TOKENS, 0, 0, lengths.computed / 2).total_s
    streams = engine.room(lengths)
    answers = streams / line.step(0, streams, lengths.context).total_s
    seconds = most * (lengths.computed / prompts + lengths.output / answers)
    return Capacity(prompts * seconds, answers * seconds, usable)
