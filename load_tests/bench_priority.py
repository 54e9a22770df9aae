"""Priority and fairness at twice the capacity, on the real admission queue in the simulator.

Three experiments: interactive chat beside a flood of batch work; ten tenants of one class that
all have a backlog; one tenant that floods while nine behave. Peers without a queue of their own
are shown as least-requests with everything sent to the engines at once.
"""

from __future__ import annotations

from collections.abc import Sequence

from load_tests.priority.experiments import (
    ClassesResult,
    FairnessResult,
    FloodResult,
    Setup,
    classes,
    fairness,
    flood,
)
from load_tests.report import Mark, Report, Row, bench_parser, emit
from load_tests.sim.calibrations import load_timing, timing_names


def main(argv: Sequence[str] | None = None) -> int:
    """Run the three experiments and print the report."""
    parser = bench_parser("priority", __doc__)
    parser.add_argument("--replicas", type=int, default=8)
    parser.add_argument("--calibration", default="h100-8b", help=", ".join(timing_names()))
    parser.add_argument("--batched-tokens", type=int, default=2048, help="engine's step budget")
    parser.add_argument("--seconds", type=float, help="simulated, default 180")
    options = parser.parse_args(argv)
    seconds = options.seconds or (40.0 if options.quick else 180.0)
    setup = Setup(
        replicas=options.replicas,
        timing=load_timing(options.calibration),
        batched_tokens=options.batched_tokens,
        seconds=seconds,
        warm_s=seconds / 6,
        seed=options.seed,
    )
    by_class, by_tenant, by_flood = classes(setup), fairness(setup), flood(setup)
    rows = _rows(by_class, by_tenant, by_flood)
    marks = _marks(by_class, by_tenant, by_flood)
    notes = [f"step times {setup.timing.name}: {setup.timing.source}"]
    return emit(Report("priority", options.seed, rows, marks, notes), options, argv)


def _rows(c: ClassesResult, f: FairnessResult, x: FloodResult) -> list[Row]:
    table = "interactive beside batch at 2× capacity"
    rows: list[Row] = [
        {"table": table, "system": "weir, interactive alone", "ttft_p99_ms": c.alone_p99_ms},
        {
            "table": table,
            "system": "weir",
            "ttft_p50_ms": c.loaded_p50_ms,
            "ttft_p99_ms": c.loaded_p99_ms,
            "tokens_per_s": c.tokens_per_s,
            "capacity_tokens_per_s": c.capacity_tokens_per_s,
        },
        {"table": table, "system": "least-requests, no queue", "ttft_p99_ms": c.open_p99_ms},
        {
            "table": "ten tenants with a backlog",
            "system": "weir",
            "jain_index": f.jain,
            "service_max_minus_min_tokens": f.spread,
            "bound_tokens": f.bound,
        },
    ]
    rows += [
        {"table": "service per tenant", "system": name, "weighted_tokens": value}
        for name, value in sorted(f.service.items())
    ]
    flooded = "one tenant of ten floods: TTFT of the other nine"
    rows += [
        {
            "table": flooded,
            "system": "weir",
            "calm_p99_ms": x.calm_p99_ms,
            "flood_p99_ms": x.flood_p99_ms,
            "worst_ratio": x.worst_ratio,
            "flooder_p99_ms": x.flooder_p99_ms,
        },
        {
            "table": flooded,
            "system": "least-requests, no queue",
            "worst_ratio": x.open_worst_ratio,
        },
    ]
    return rows


def _marks(c: ClassesResult, f: FairnessResult, x: FloodResult) -> list[Mark]:
    return [
        Mark("interactive TTFT p99, overload / alone", c.p99_ratio, "ratio", 1.2, "lower"),
        Mark("token throughput / capacity", c.throughput_share, "ratio", 0.95, "higher"),
        Mark("Jain's index of backlogged tenants", f.jain, "index", 0.98, "higher"),
        Mark(
            "service max − min over the bound 2·max(w_p·L, w_q·M)",
            f.spread / f.bound,
            "ratio",
            1.0,
            "lower",
        ),
        Mark("others' TTFT p99, flood / calm, worst tenant", x.worst_ratio, "ratio", 1.2, "lower"),
    ]


if __name__ == "__main__":
    raise SystemExit(main())
