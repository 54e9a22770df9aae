"""Several gateways before the same replicas, in the simulator: do they herd, what costs a restart.

One gateway is what several are measured against: it sees all work. Two and four share what they
have in flight through the replicas (every 50 ms); the same without sharing shows what that is
worth. In the last row one of two gateways is replaced half-way by one that knows only what a
replay of the engines' KV events tells it. Mooncake's conversation trace, 8 replicas.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from load_tests.report import Mark, Report, bench_parser, emit, median
from load_tests.sim.calibrations import load_timing
from load_tests.sim.engine import EngineConfig
from load_tests.sim.figures import Slo, Window, figures
from load_tests.sim.gateways import SeveralGateways
from load_tests.sim.run import Clock, Outcome, Saturation, measure_saturation, run_open
from load_tests.sim.system import System
from load_tests.sim.weir_system import WeirSystem, routing_profile
from load_tests.sim.world import FleetConfig
from load_tests.traces import Trace, head, load_trace

TRACE = Path(__file__).parents[2] / "shared" / "traces" / "mooncake_conv_dev.jsonl.gz"
KV_TOKENS = 1 << 20
SHOWN = (
    "goodput_req_per_s",
    "ttft_p50_ms",
    "ttft_p99_ms",
    "hit_rate",
    "imbalance_max_over_mean",
)
AFTER_RESTART = "2 gateways, one restarted"
Run = Mapping[str, Any]


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; exit code 0 when the bench ran, whatever the marks."""
    parser = bench_parser("gateways", __doc__)
    parser.add_argument("--trace", type=Path, default=TRACE, help="an open-loop trace")
    parser.add_argument("--limit", type=int, help="requests of it; default 4000, quick 800")
    parser.add_argument("--replicas", type=int, default=8)
    parser.add_argument("--load", type=float, default=0.9, help="in multiples of saturation")
    parser.add_argument("--rounds", type=int, help="seeds, medians are shown; default 3, quick 1")
    options = parser.parse_args(argv)
    if not options.trace.is_file():
        parser.error(f"no trace at {options.trace}: name one with --trace")
    trace = head(load_trace(options.trace, None), options.limit or (800 if options.quick else 4000))
    bench = _Bench(trace, options)
    rounds = options.rounds or (1 if options.quick else 3)
    rows = [bench.row(name, rounds) for name in bench.systems]
    notes = (f"{len(trace.requests)} requests at {options.load:g} of saturation",)
    return emit(Report("gateways", options.seed, rows, marks(rows), notes), options, argv)


class _Bench:
    """One trace on one fleet at one load, for each set of gateways."""

    def __init__(self, trace: Trace, options: argparse.Namespace) -> None:
        timing = load_timing("h100-8b")
        engine = EngineConfig(KV_TOKENS // trace.block_size, trace.block_size, 2048, 256, True)
        self._fleet = FleetConfig(options.replicas, engine, timing)
        self._trace = trace
        self._load = options.load
        self._seed = options.seed
        self._slo = Slo(5.0, 0.15)
        self._saturation: Saturation = measure_saturation(trace, self._fleet, Clock(), options.seed)
        half_s = len(trace.requests) / (self._saturation.req_per_s * self._load) / 2
        self._half_s = half_s

        def several(count: int, **more: Any) -> Callable[[], System]:
            return lambda: SeveralGateways(self._gateway, count, **more)

        self.systems: dict[str, Callable[[], System]] = {
            "1 gateway": self._gateway,
            "2 gateways": several(2),
            "4 gateways": several(4),
            "2 gateways, nothing shared": several(2, tell_s=None),
            "4 gateways, nothing shared": several(4, tell_s=None),
            AFTER_RESTART: several(2, restart_at_s=half_s),
        }

    def _gateway(self) -> WeirSystem:
        return WeirSystem(routing_profile(self._slo))

    def row(self, name: str, rounds: int) -> dict[str, Any]:
        """Medians over seeds; for the restart also the hit rate after it."""
        runs = [self._run(name, self._seed + number) for number in range(rounds)]
        row: dict[str, Any] = {"system": name}
        for key in (*SHOWN, "hit_rate_second_half"):
            row[key] = median(run[key] for run in runs)
        print(f"{name}: {row['goodput_req_per_s']:.2f} good req/s", file=sys.stderr, flush=True)
        return row

    def _run(self, name: str, seed: int) -> Run:
        outcome: Outcome = run_open(
            self.systems[name](),
            self._trace,
            self._fleet,
            self._saturation.req_per_s * self._load,
            self._slo,
            seed,
        )
        later = figures(outcome.world, self._slo, Window(self._half_s, 1e12))
        return {**outcome.figures, "hit_rate_second_half": later["hit_rate"]}


def marks(rows: Sequence[Run]) -> list[Mark]:
    """Several against one; the restart against the same gateways without one."""
    by_name = {row["system"]: row for row in rows}
    one, two, four = (by_name[f"{n} gateway{'s' * (n > 1)}"] for n in (1, 2, 4))
    restarted = by_name[AFTER_RESTART]

    def ratio(name: str, row: Run, base: Run, key: str, target: float, better: Any) -> Mark:
        return Mark(f"{name}, {key}", row[key] / base[key], "x", target, better)

    later = "hit_rate_second_half"
    return [
        ratio("2 gateways / 1", two, one, "goodput_req_per_s", 0.97, "higher"),
        ratio("4 gateways / 1", four, one, "goodput_req_per_s", 0.95, "higher"),
        ratio("2 gateways / 1", two, one, "hit_rate", 0.95, "higher"),
        ratio("2 gateways / 1", two, one, "ttft_p99_ms", 1.2, "lower"),
        ratio("one of 2 restarted / none", restarted, two, later, 0.95, "higher"),
    ]


if __name__ == "__main__":
    sys.exit(main())
