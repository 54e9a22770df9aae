"""Whether to disaggregate prefill and decode: weir's rule against fixed choices and peers'.

``--sim`` (the default): simulated H100s, the gateway's own dispatcher. Every row has the same
number of the same engines; they differ in the replicas' roles and in the rule. See
docs/simulator.md for the traffic and the figures. ``--live``: two replicas of a small model on this
machine, as one prefill and one decode replica and as two mixed ones
(:mod:`load_tests.disaggregation.live`).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from load_tests.disaggregation.fleets import ADAPTIVE, Contender, contenders
from load_tests.disaggregation.live import (
    LIVE_FLEETS,
    LONG_TOKENS,
    TPOT_TARGET_MS,
    Live,
    LivePlan,
    measure_live,
)
from load_tests.disaggregation.live import MIXED as LIVE_MIXED
from load_tests.disaggregation.live import SPLIT as LIVE_SPLIT
from load_tests.disaggregation.runs import Plan, rows_of
from load_tests.disaggregation.traffic import SHARED, Traffic, reported, tuning
from load_tests.report import Mark, Report, absent_row, bench_parser, emit
from load_tests.servers import StartError, Unavailable, engine_workload, unwind_on_sigterm
from load_tests.sim.calibrations import load_timing, timing_names
from load_tests.sim.engine import EngineConfig
from load_tests.sim.run import Clock
from load_tests.sim.world import FleetConfig
from load_tests.traces import TraceError

KV_TOKENS = 1 << 20
MIXED = "chat and documents"
Row = Mapping[str, Any]


def parser() -> argparse.ArgumentParser:
    """The bench's options."""
    options = bench_parser("pd", __doc__)
    where = options.add_mutually_exclusive_group()
    where.add_argument("--sim", action="store_true", help="in the simulator (the default)")
    where.add_argument("--live", action="store_true", help="with real engines on this machine")
    options.add_argument("--window-s", type=float, help="live: default 30, quick 8")
    options.add_argument("--model", type=Path, help="live: a folder; default: the teacher")
    options.add_argument("--keep-logs", type=Path, help="live: a folder for the platform's logs")
    options.add_argument(
        "--tuning", action="store_true", help="the traffic that rules are tuned on"
    )
    options.add_argument("--traffic", nargs="+", help="only traffic whose name begins like that")
    options.add_argument("--systems", nargs="+", help="only systems whose name begins like that")
    options.add_argument("--loads", type=float, nargs="+", help="in multiples of saturation")
    options.add_argument("--replicas", type=int, default=8)
    options.add_argument("--requests", type=int, help="per open-loop trace; default 4000")
    options.add_argument("--rounds", type=int, help="seeds, medians are shown; default 2, quick 1")
    options.add_argument("--users-s", type=float, help="closed loop: simulated seconds")
    options.add_argument("--calibration", default="h100-8b", help=", ".join(timing_names()))
    options.add_argument("--batched-tokens", type=int, default=2048, help="engine's step budget")
    return options


def main(argv: Sequence[str] | None = None) -> int:
    """Run and print; exit code 0 when the bench ran, whatever the marks."""
    options = parser().parse_args(argv)
    if options.live:
        return _live(options, argv)
    timing = load_timing(options.calibration)
    engine = EngineConfig(KV_TOKENS // 512, 512, options.batched_tokens, 256, True)
    fleet = FleetConfig(options.replicas, engine, timing)
    rows: list[dict[str, Any]] = []
    for traffic in _traffic(options):
        rows += rows_of(traffic, _contenders(options), fleet, _plan(options))
    report = Report("pd", options.seed, rows, marks_of(rows), _notes(fleet))
    return emit(report, options, argv)


def _live(options: argparse.Namespace, argv: Sequence[str] | None) -> int:
    unwind_on_sigterm()
    window_s = options.window_s or (8.0 if options.quick else 30.0)
    plan = LivePlan(window_s, 10 if options.quick else 40, 8 if options.quick else 30)
    fleets = [f for f in LIVE_FLEETS if f.name == LIVE_MIXED or _begins(f.name, options.systems)]
    rows: list[Row] = []
    reference: Live | None = None
    for fleet in fleets:
        try:
            workload = engine_workload(options.model)
            live = measure_live(fleet, workload, plan, options.seed, options.keep_logs)
        except (StartError, Unavailable) as error:
            rows.append(absent_row(fleet.name, f"{error} {getattr(error, 'log_tail', '')}"))
            continue
        reference = reference or live
        rows.append(live.row(reference))
    report = Report("pd", options.seed, rows, live_marks(rows), _live_notes(plan))
    return emit(report, options, argv)


def _live_notes(plan: LivePlan) -> list[str]:
    return [
        f"{plan.streams} streams decode for {plan.window_s:g} s beside a prompt of {LONG_TOKENS} "
        f"tokens every {plan.every_s:g} s; the class's TPOT target is {TPOT_TARGET_MS:g} ms",
        "cores_per_replica 1: every thread of a replica is bound to one core, another one for each "
        "replica; gateway and clients are not bound, and take from all of them. null: the machine "
        "has fewer cores than replicas",
    ]


def live_marks(rows: Sequence[Row]) -> list[Mark]:
    """Of the split fleet beside the mixed one."""
    by_name = {row["system"]: row for row in rows}
    mixed, split = by_name.get(LIVE_MIXED, {}), by_name.get(LIVE_SPLIT, {})
    mixed_s, split_s = mixed.get("itl_p99_ms"), split.get("itl_p99_ms")
    ratio = split_s / mixed_s if mixed_s and split_s else None
    same = split.get("answers_identical_ratio")
    reused = split.get("prompt_tokens_not_computed_again_ratio")
    return [
        Mark("answers identical to mixed replicas'", same, "ratio", 1.0, "higher", _why(same)),
        Mark("prompt tokens not computed again", reused, "ratio", 0.99, "higher", _why(reused)),
        Mark(
            "ITL p99 of running decodes while long prompts arrive, split over mixed",
            ratio,
            "x",
            0.5,
            "lower",
            _why(ratio),
        ),
    ]


def _why(value: float | None) -> str | None:
    return "one of the two fleets was not measured" if value is None else None


def _traffic(options: argparse.Namespace) -> list[Traffic]:
    make = tuning if options.tuning else reported
    try:
        every = make(options.requests or (600 if options.quick else 4000), options.seed)
    except (TraceError, FileNotFoundError) as error:
        raise SystemExit(f"weir bench pd: the traces are read from {SHARED}: {error}") from error
    return [t for t in every if _begins(t.name, options.traffic)]


def _contenders(options: argparse.Namespace) -> list[Contender]:
    return [c for c in contenders() if _begins(c.name, options.systems)]


def _begins(name: str, beginnings: Sequence[str] | None) -> bool:
    return beginnings is None or name.startswith(tuple(beginnings))


def _plan(options: argparse.Namespace) -> Plan:
    rounds = options.rounds or (1 if options.quick else 2)
    seconds = options.users_s or (300.0 if options.quick else 900.0)
    loads = options.loads or ((0.6,) if options.quick else (0.4, 0.6, 0.8, 1.0))
    seeds = tuple(options.seed + number for number in range(rounds))
    return Plan(tuple(loads), seeds, Clock(warm_s=300.0, horizon_s=300.0 + seconds))


def marks_of(rows: Sequence[Row]) -> list[Mark]:
    """Adaptive over the best fixed choice: at each load, and the best load of each."""
    marks = []
    for table in dict.fromkeys(row["table"] for row in rows):
        marks += _mark(table, [row for row in rows if row["table"] == table])
    return marks


def _mark(table: str, rows: Sequence[Row]) -> list[Mark]:
    goodput = {row["system"]: row["goodput_req_per_s"] for row in rows}
    fixed = [goodput[row["system"]] for row in rows if row["kind"] == "fixed"]
    if ADAPTIVE not in goodput or not fixed or not max(fixed):
        return []
    target = 1.2 if table.startswith(MIXED) else 1.0
    name = f"{table}: adaptive / best fixed, goodput"
    marks = [Mark(name, goodput[ADAPTIVE] / max(fixed), "x", target, "higher")]
    if table.startswith(MIXED):  # an open loop: the same is offered to all
        offered = max(row["offered_req_per_s"] for row in rows)
        name = f"{table}: offered / best fixed, goodput, the most that any rule can have"
        marks.append(Mark(name, offered / max(fixed), "x", target, "higher"))
    return marks


def _notes(fleet: FleetConfig) -> list[str]:
    return [
        f"step times {fleet.timing.name}: {fleet.timing.source}",
        f"link {fleet.link.name}: {fleet.link.source}",
        "load 1.0 is the best throughput of the all-mixed fleet under an oracle, whatever the "
        "latencies; the same number of the same engines in every row",
        "fixed choices are never (all replicas mixed) and always (three ratios); the mark is "
        f"{ADAPTIVE!r} over the best of these four at that load",
    ]


if __name__ == "__main__":
    sys.exit(main())
