"""Priority and fairness at twice the capacity, on the real admission queue in the simulator.

Four experiments: interactive chat beside a flood of batch work; the same beside long documents,
with weir's scheduler in the engines and with vLLM's own; ten tenants of one class that all have a
backlog; one tenant that floods while nine behave. Peers without a queue of their own are shown as
least-requests with everything sent to the engines at once. Marks are medians over seeds, rows are
of the first seed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from load_tests.priority.experiments import (
    ClassesResult,
    DocumentsResult,
    FairnessResult,
    FloodResult,
    Setup,
    classes,
    documents,
    fairness,
    flood,
)
from load_tests.report import Mark, Report, Row, bench_parser, emit, median
from load_tests.sim.calibrations import load_timing, timing_names


def main(argv: Sequence[str] | None = None) -> int:
    """Run the experiments and print the report."""
    parser = bench_parser("priority", __doc__)
    parser.add_argument("--replicas", type=int, default=8)
    parser.add_argument("--calibration", default="h100-8b", help=", ".join(timing_names()))
    parser.add_argument("--batched-tokens", type=int, default=2048, help="engine's step budget")
    parser.add_argument("--seconds", type=float, help="simulated, default 180")
    parser.add_argument("--rounds", type=int, help="seeds, default 3, quick 1")
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
    seeds = range(options.seed, options.seed + (options.rounds or (1 if options.quick else 3)))
    runs = [_run(replace(setup, seed=seed)) for seed in seeds]
    notes = [f"step times {setup.timing.name}: {setup.timing.source}"]
    return emit(
        Report("priority", options.seed, _rows(runs[0]), _marks(runs), notes), options, argv
    )


@dataclass(frozen=True, slots=True)
class _Run:
    """All experiments with one seed."""

    classes: ClassesResult
    documents: DocumentsResult
    fairness: FairnessResult
    flood: FloodResult


def _run(setup: Setup) -> _Run:
    found = _Run(classes(setup), documents(setup), fairness(setup), flood(setup))
    print(
        f"seed {setup.seed}: interactive p99 {found.classes.p99_ratio:.2f} times alone, "
        f"throughput {found.classes.throughput_share:.3f}, flood {found.flood.worst_ratio:.2f}",
        file=sys.stderr,
        flush=True,
    )
    return found


def _rows(run: _Run) -> list[Row]:
    c, d, f, x = run.classes, run.documents, run.fairness, run.flood
    beside_documents = "interactive beside documents of 8k to 100k tokens in batch"
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
        {"table": beside_documents, "system": "weir, alone", "ttft_p99_ms": d.alone_p99_ms},
        {
            "table": beside_documents,
            "system": "weir",
            "ttft_p99_ms": d.yielding_p99_ms,
            "tokens_over_next_row": d.throughput_over_stock,
        },
        {
            "table": beside_documents,
            "system": "weir, vLLM's own scheduler in the engines",
            "ttft_p99_ms": d.stock_p99_ms,
        },
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


def _marks(runs: Sequence[_Run]) -> list[Mark]:
    def mark(
        name: str,
        figure: Callable[[_Run], float],
        target: float,
        better: Literal["lower", "higher"],
        unit: str = "ratio",
    ) -> Mark:
        return Mark(name, median([figure(run) for run in runs]), unit, target, better)

    return [
        mark("interactive TTFT p99, overload / alone", lambda r: r.classes.p99_ratio, 1.2, "lower"),
        mark("token throughput / capacity", lambda r: r.classes.throughput_share, 0.95, "higher"),
        mark(
            "interactive TTFT p99 beside long documents, weir's scheduler / vLLM's",
            lambda r: r.documents.yielding_p99_ms / r.documents.stock_p99_ms,
            1.0,
            "lower",
        ),
        mark(
            "Jain's index of backlogged tenants", lambda r: r.fairness.jain, 0.98, "higher", "index"
        ),
        mark(
            "service max − min over the bound 2·max(w_p·L, w_q·M)",
            lambda r: r.fairness.spread / r.fairness.bound,
            1.0,
            "lower",
        ),
        mark(
            "others' TTFT p99, flood / calm, worst tenant",
            lambda r: r.flood.worst_ratio,
            1.2,
            "lower",
        ),
    ]


if __name__ == "__main__":
    raise SystemExit(main())
