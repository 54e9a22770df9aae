"""Run one routing system on one trace file in the simulator.

The load is either --load (multiples of what the fleet can do at best, which two extra runs find
out), --rate (requests per second, open loop) or --users (closed loop).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from load_tests.report import Report, bench_parser, emit
from load_tests.sim.calibrations import load_timing, timing_names
from load_tests.sim.engine import EngineConfig
from load_tests.sim.figures import Slo
from load_tests.sim.run import (
    Clock,
    Outcome,
    check_fits,
    measure_saturation,
    run_at,
    run_closed,
    run_open,
)
from load_tests.sim.system import System
from load_tests.sim.world import FleetConfig
from load_tests.systems import ENTRIES, WEIR
from load_tests.traces import FORMATS, Trace, TraceError, head, load_trace

KV_TOKENS = 1 << 20


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    options = bench_parser("simulate", __doc__)
    options.prog = "weir simulate"
    options.add_argument("trace", type=Path)
    options.add_argument("--format", choices=sorted(FORMATS))
    options.add_argument("--system", choices=list(ENTRIES), default=WEIR)
    options.add_argument("--replicas", type=int, default=8)
    options.add_argument("--blocks", type=int, help="KV blocks per replica (of the trace's size)")
    options.add_argument("--calibration", default="h100-8b", help=", ".join(timing_names()))
    options.add_argument("--batched-tokens", type=int, default=2048)
    options.add_argument("--slo-ttft-s", type=float, default=5.0)
    options.add_argument("--slo-tpot-ms", type=float, default=150.0)
    options.add_argument("--limit", type=int, help="only so many requests")
    options.add_argument("--seconds", type=float, default=900.0, help="closed loop: measured time")
    how = options.add_mutually_exclusive_group()
    how.add_argument("--load", type=float)
    how.add_argument("--rate", type=float, help="requests per second; default: as recorded")
    how.add_argument("--users", type=int)
    return options


def main(argv: Sequence[str] | None = None) -> int:
    """Simulate and print one row per member of the system."""
    options = parser().parse_args(argv)
    try:
        trace = load_trace(options.trace, options.format)
        if options.limit:
            trace = head(trace, options.limit)
        fleet = _fleet(options, trace)
        check_fits(trace, fleet)
    except (TraceError, ValueError) as error:
        raise SystemExit(f"weir simulate: {error}") from error
    slo = Slo(options.slo_ttft_s, options.slo_tpot_ms / 1e3)
    rows = []
    for factory in ENTRIES[options.system].factories:
        system = factory(slo)
        outcome = _run(options, system, trace, fleet, slo)
        speed = {"simulated_requests_per_min": outcome.simulated_per_min}
        rows.append({"system": system.name, **outcome.figures, **speed})
    return emit(Report("simulate", options.seed, rows, (), [fleet.timing.source]), options, argv)


def _fleet(options: argparse.Namespace, trace: Trace) -> FleetConfig:
    blocks = options.blocks or KV_TOKENS // trace.block_size
    engine = EngineConfig(blocks, trace.block_size, options.batched_tokens, 256, True)
    return FleetConfig(options.replicas, engine, load_timing(options.calibration))


def _run(
    options: argparse.Namespace, system: System, trace: Trace, fleet: FleetConfig, slo: Slo
) -> Outcome:
    clock = Clock(warm_s=options.seconds / 4, horizon_s=options.seconds * 1.25)
    seed = options.seed
    if options.load is not None:
        saturation = measure_saturation(trace, fleet, clock, seed)
        return run_at(system, trace, fleet, saturation, options.load, slo, clock, seed)
    if trace.closed_loop:
        if options.users is None:
            raise SystemExit("weir simulate: a closed-loop trace needs --users or --load")
        return run_closed(system, trace, fleet, options.users, slo, clock, seed)
    rate = options.rate or len(trace.requests) / max(trace.span_s, 1e-9)
    return run_open(system, trace, fleet, rate, slo, seed)


if __name__ == "__main__":
    raise SystemExit(main())
