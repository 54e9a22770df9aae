"""Run a system on a trace at a load, and what load 1.0 means.

Load 1.0 is what the fleet can do at best, measured with an oracle: in an open loop the rate at
which it works off a flood, and the load multiplies the arrival rate; in a closed loop the highest
rate over several numbers of users, and the load multiplies the number of users that would just
bring that rate about by Little's law: rate times the time a user takes per request when the fleet
is idle.
"""

from __future__ import annotations

import gc
import time
from dataclasses import dataclass
from typing import Any

from load_tests.peers.oracle import Oracle, OracleRule
from load_tests.sim.figures import Judge, Slo, Window, figures
from load_tests.sim.system import System
from load_tests.sim.world import FleetConfig, World
from load_tests.traces.schema import Trace, TraceError
from load_tests.traces.shaping import jitter_ticks, scale_rate

REFERENCE = OracleRule(waste=10.0)
USERS_TRIED = (8, 12, 16, 24)


@dataclass(frozen=True, slots=True)
class Clock:
    """A closed-loop run: users begin over ``ramp_s``; requests arriving from ``warm_s`` on until
    ``horizon_s`` are counted; the run goes on for ``grace_s`` so that they can finish."""

    ramp_s: float = 60.0
    warm_s: float = 300.0
    horizon_s: float = 1500.0
    grace_s: float = 120.0


@dataclass(frozen=True, slots=True)
class Saturation:
    """What load 1.0 is: requests per second (``req_per_s``), and users in a closed loop."""

    req_per_s: float
    users: float = 0.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """One run: its world (requests, engines), the figures, and the wall time it took."""

    world: World
    figures: dict[str, Any]
    wall_s: float

    @property
    def simulated_per_min(self) -> float:
        """Requests simulated per minute of wall time."""
        return len(self.world.requests) / self.wall_s * 60


def check_fits(trace: Trace, fleet: FleetConfig) -> None:
    """Raises TraceError when a request could never run on an engine alone."""
    size = fleet.engine.block_size
    if trace.block_size != size:
        raise TraceError(f"{trace.name} has blocks of {trace.block_size} tokens, the engine {size}")
    longest = max(request.prompt_tokens + request.output_tokens for request in trace.requests)
    if longest + size > fleet.engine.blocks * size:
        raise TraceError(
            f"{trace.name}: a request of {longest} tokens does not fit into "
            f"{fleet.engine.blocks} blocks of {size}; give more --blocks"
        )


def run_open(
    system: System, trace: Trace, fleet: FleetConfig, req_per_s: float, slo: Judge, seed: int
) -> Outcome:
    """Replay with jitter, scaled to ``req_per_s`` on average."""
    smooth = jitter_ticks(trace, seed)
    scaled = scale_rate(smooth, req_per_s * smooth.span_s / len(smooth.requests))
    world = World(system, fleet, seed)
    wall_s = _timed(lambda: world.run_open(scaled))
    window = Window(0.0, scaled.span_s + 1e-6)
    return Outcome(world, figures(world, slo, window), wall_s)


def run_closed(
    system: System,
    trace: Trace,
    fleet: FleetConfig,
    users: int,
    slo: Judge,
    clock: Clock,
    seed: int,
) -> Outcome:
    """``users`` clients for ``clock.horizon_s``."""
    world = World(system, fleet, seed)
    end_s = clock.horizon_s + clock.grace_s
    wall_s = _timed(lambda: world.run_closed(trace, users, end_s, clock.ramp_s))
    window = Window(clock.warm_s, clock.horizon_s)
    return Outcome(world, figures(world, slo, window), wall_s)


def run_at(
    system: System,
    trace: Trace,
    fleet: FleetConfig,
    saturation: Saturation,
    load: float,
    slo: Judge,
    clock: Clock,
    seed: int,
) -> Outcome:
    """Run at ``load`` times saturation, open or closed as the trace is."""
    if trace.closed_loop:
        users = max(1, round(saturation.users * load))
        return run_closed(system, trace, fleet, users, slo, clock, seed)
    return run_open(system, trace, fleet, saturation.req_per_s * load, slo, seed)


def measure_saturation(trace: Trace, fleet: FleetConfig, clock: Clock, seed: int) -> Saturation:
    """What load 1.0 is for this trace and fleet (a few runs of the reference system)."""
    check_fits(trace, fleet)
    slo = Slo(1e9, 1e9)
    if not trace.closed_loop:
        smooth = jitter_ticks(trace, seed)
        rate = len(smooth.requests) / smooth.span_s
        outcome = run_open(Oracle(REFERENCE), trace, fleet, rate * 1000, slo, seed)
        return Saturation(_finish_rate(outcome.world))
    few = max(2, fleet.replicas)
    light = run_closed(Oracle(REFERENCE), trace, fleet, few, slo, clock, seed)
    per_request_s = few / light.figures["offered_req_per_s"]
    # More users than the caches can hold make a fleet slower, so the flood is not the peak.
    rate = max(
        _finish_rate(
            run_closed(Oracle(REFERENCE), trace, fleet, users, slo, clock, seed).world,
            clock.warm_s,
            clock.horizon_s,
        )
        for users in (times * fleet.replicas for times in USERS_TRIED)
    )
    return Saturation(rate, rate * per_request_s)


def _finish_rate(world: World, start_s: float | None = None, end_s: float | None = None) -> float:
    """Requests finished per second, in a window or between the 10th and 90th percentile."""
    ends = sorted(r.finish_s for r in world.requests if r.finish_s is not None)
    if start_s is None or end_s is None:
        start_s, end_s = ends[len(ends) // 10], ends[len(ends) * 9 // 10]
    done = sum(1 for end in ends if start_s <= end < end_s)
    return done / max(1e-9, end_s - start_s)


def _timed(run: Any) -> float:
    """Wall seconds of ``run()``, without the cyclic garbage collector: nothing here is cyclic
    but the world itself, and a collection walks millions of trace tuples."""
    collecting = gc.isenabled()
    gc.disable()
    began = time.perf_counter()
    try:
        run()
    finally:
        if collecting:
            gc.enable()
    return time.perf_counter() - began
