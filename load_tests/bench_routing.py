"""Routing on real traces, in the simulator: weir against every peer and the oracle.

Each (trace, replicas) is swept from light load to twice saturation; a row per system and load.
Without --trace: the Mooncake conversation trace (open loop) and the WEKA agent sessions (closed
loop with think time), read from ../shared/traces; see docs/simulator.md for what the figures mean.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from load_tests.report import Report, absent_row, bench_parser, emit
from load_tests.routing.earlier import earlier_cells
from load_tests.routing.kept import KeptRuns
from load_tests.routing.marks import marks_of
from load_tests.routing.picture import draw
from load_tests.routing.sweep import Plan, Scenario, sweep
from load_tests.sim.calibrations import load_timing, timing_names
from load_tests.sim.engine import EngineConfig
from load_tests.sim.figures import Slo
from load_tests.sim.run import Clock
from load_tests.sim.world import FleetConfig
from load_tests.systems import ENTRIES
from load_tests.traces import FORMATS, TraceError, head, load_trace

SHARED = Path(__file__).parents[2] / "shared" / "traces"
DEFAULT_TRACES = ("mooncake_conv_dev.jsonl.gz", "weka_claudecode_dev.jsonl.gz")
LOADS = (0.25, 0.5, 0.75, 0.9, 1.0, 1.25, 1.5, 2.0)
QUICK_LOADS = (0.5, 0.9, 1.5)
KV_TOKENS = 1 << 20


def parser() -> argparse.ArgumentParser:
    """The bench's options."""
    options = bench_parser("routing", __doc__)
    options.add_argument("--trace", type=Path, action="append", help="a file; may be repeated")
    options.add_argument("--format", choices=sorted(FORMATS), help="when its name does not tell")
    options.add_argument("--replicas", type=int, nargs="+", default=None, help="default 8 16")
    options.add_argument("--blocks", type=int, help="KV blocks per replica (of the trace's size)")
    options.add_argument("--loads", type=float, nargs="+", help="in multiples of saturation")
    options.add_argument("--systems", nargs="+", choices=list(ENTRIES), default=list(ENTRIES))
    options.add_argument("--limit", type=int, help="only so many requests of a trace")
    options.add_argument("--rounds", type=int, help="seeds per cell, medians are shown; default 3")
    options.add_argument(
        "--calibration", default="h100-8b", help=f"{', '.join(timing_names())} or a JSON file"
    )
    options.add_argument("--batched-tokens", type=int, default=2048, help="engine's step budget")
    options.add_argument("--slo-ttft-s", type=float, default=5.0)
    options.add_argument("--slo-tpot-ms", type=float, default=150.0, help="about reading speed")
    options.add_argument("--users-s", type=float, help="closed loop: simulated seconds")
    options.add_argument("--picture", type=Path, help="also draw a PNG")
    options.add_argument(
        "--keep",
        type=Path,
        metavar="FILE",
        help="keep each run's figures there and do not repeat runs that are in it, so that a "
        "sweep can be resumed; good for one version of the code",
    )
    options.add_argument(
        "--others",
        type=Path,
        metavar="REPORT",
        help="an earlier report (JSON) for the rows of the systems that are not run; good while "
        "their code, the engine's and the seeds are the same",
    )
    return options


def main(argv: Sequence[str] | None = None) -> int:
    """Run the sweep and print the report."""
    options = parser().parse_args(argv)
    scenarios, missing = _scenarios(options)
    plan = _plan(options)
    cells = [cell for scenario in scenarios for cell in sweep(scenario, plan)]
    notes = _notes(scenarios, plan)
    if options.others is not None:
        others = earlier_cells(options.others, scenarios, plan.systems)
        cells = sorted([*cells, *others], key=lambda cell: (cell.scenario.title, cell.load))
        command = json.loads(options.others.read_text("utf-8")).get("command")
        notes.append(f"all systems but {', '.join(plan.systems)}: rows of an earlier {command!r}")
    rows = [cell.row() for cell in cells] + missing
    report = Report("routing", options.seed, rows, marks_of(cells, plan), notes)
    if options.picture is not None and cells:
        draw(cells, options.picture)
    return emit(report, options, argv)


def _plan(options: argparse.Namespace) -> Plan:
    loads = options.loads or (QUICK_LOADS if options.quick else LOADS)
    rounds = options.rounds or (1 if options.quick else 3)
    seconds = options.users_s or (600.0 if options.quick else 1800.0)
    return Plan(
        loads=tuple(sorted(loads)),
        systems=tuple(options.systems),
        slo=Slo(options.slo_ttft_s, options.slo_tpot_ms / 1e3),
        clock=Clock(warm_s=300.0, horizon_s=300.0 + seconds),
        seeds=tuple(options.seed + number for number in range(rounds)),
        kept=KeptRuns(options.keep),
    )


def _scenarios(
    options: argparse.Namespace,
) -> tuple[list[Scenario], list[dict[str, object]]]:
    """What to run, and rows for the default traces that are not here."""
    scenarios: list[Scenario] = []
    missing: list[dict[str, object]] = []
    timing = load_timing(options.calibration)
    paths = options.trace or [SHARED / name for name in DEFAULT_TRACES]
    replicas = options.replicas or ([8] if options.quick else [8, 16])
    for path in paths:
        if options.trace is None and not path.exists():
            reason = f"{path.name} is not in {SHARED}: give a file with --trace"
            missing.append(absent_row(path.name, reason))
            continue
        try:
            trace = load_trace(path, options.format)
        except TraceError as error:
            raise SystemExit(f"weir bench routing: {error}") from error
        limit = options.limit or (1500 if options.quick and not trace.closed_loop else None)
        if limit is not None:
            trace = head(trace, limit)
        blocks = options.blocks or KV_TOKENS // trace.block_size
        engine = EngineConfig(blocks, trace.block_size, options.batched_tokens, 256, True)
        scenarios += [Scenario(trace, FleetConfig(count, engine, timing)) for count in replicas]
    return scenarios, missing


def _notes(scenarios: Sequence[Scenario], plan: Plan) -> list[str]:
    timing = {scenario.fleet.timing.name: scenario.fleet.timing.source for scenario in scenarios}
    notes = [f"step times {name}: {source}" for name, source in timing.items()]
    notes.append(
        f"good: TTFT ≤ {plan.slo.ttft_s:g} s and TPOT ≤ {plan.slo.tpot_s * 1e3:g} ms; load 1.0 is "
        "the best throughput that the reference oracle reaches; every system has the same engines "
        "and answers every request (late ones last, none is refused)"
    )
    return notes


if __name__ == "__main__":
    raise SystemExit(main())
