"""``weir bench autoscale``: what capacity costs by weir's policy and by its peers', over days.

ServeGen's 14 days of rates per client, through the policies that ship, in a fluid model of the
fleet (``load_tests/autoscaling``): Llama-3.3-70B in FP8 on pairs of H100 or one H200, TTFT 2 s and
TPOT 50 ms. Each policy is tuned by a grid on the first week, for the least cost at which 99 % of
urgent requests, less a margin that the same week chooses (``autoscaling/tuning.py``), are within
both limits and 99 % of batch work within six hours; the second week is reported, and the whole grid
with it. A second table compares costs at exactly 99 % of the reported week
(``autoscaling/equal_share.py``): most choices end a little below or above it. Peers get one kind of
replica, the cheapest for the traffic; weir chooses among kinds. ``usd_over_least`` compares with
what perfect knowledge would pay.

The whole takes long; ``--keep FILE`` keeps each run over a week, so a call that was ended goes on
where it was, and ``--only`` and ``--traces`` make pieces: with the same file a later call adds what
is missing.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from load_tests.autoscaling.bound_rows import (
    DRAWS,
    bound_marks,
    burst_bound,
    compare_bounds,
    rates_bound,
)
from load_tests.autoscaling.burst import recovery_s
from load_tests.autoscaling.check import check_row
from load_tests.autoscaling.contenders import ON_DEMAND, SPOT, Contender
from load_tests.autoscaling.days import Days, draws_of, least_usd, read_days, run, tune
from load_tests.autoscaling.equal_share import compare_equal, equal_marks, equal_row
from load_tests.autoscaling.programme import solver_rows
from load_tests.autoscaling.steadiness import steadiness_rows
from load_tests.autoscaling.traces import Ticks
from load_tests.autoscaling.verdicts import TARGETS, compare, cost_marks, fixed_marks
from load_tests.disaggregation.traffic import SHARED
from load_tests.report import Mark, Report, Row, bench_parser, emit
from load_tests.routing.kept import KeptRuns

_CHECKED = ("m-large", 0.0)


def main(argv: Sequence[str] | None = None) -> int:
    """Run and print; exit code 0 when the bench ran, whatever the marks."""
    options = parser().parse_args(argv)
    kept, rows, marks = KeptRuns(options.keep), list[Row](), list[Mark]()
    for trace in options.traces:
        for batch in options.batch_shares:
            table = _days_rows(trace, batch, options, kept)
            compare(table)
            rows += table
            marks += cost_marks(table)
            equal = _equal_rows(trace, batch, options, kept)
            compare_equal(equal)
            rows += equal
            marks += equal_marks(equal, TARGETS)
            if not options.only:
                bounds = _bound_rows(trace, batch, options, kept)
                compare_bounds(bounds, table, equal)
                rows += bounds
                marks += bound_marks(bounds, TARGETS["weir"])
    rows += _check_rows(options, kept)
    if not options.only_days:
        for level in range(options.levels):
            rows.append(kept.once(f"level {level} of {options.levels}", _Level(level, options)))
        key = f"solver {options.reports} {options.seed}"
        rows.append(kept.once(key, lambda: dict(solver_rows(options.reports, options.seed)[0])))
        marks += fixed_marks(rows)
    return emit(Report("autoscale", options.seed, rows, marks), options, argv)


def parser() -> argparse.ArgumentParser:
    """The options."""
    found = bench_parser("autoscale", __doc__)
    found.add_argument("--folder", default=str(SHARED), help="of the traces")
    found.add_argument("--traces", nargs="+", default=["m-large", "m-small"])
    found.add_argument("--batch-shares", nargs="+", type=float, default=[0.0, 0.3])
    found.add_argument(
        "--only-days", action="store_true", help="no constant load, no random reports"
    )
    found.add_argument("--only", nargs="+", help="only systems whose name begins like that")
    found.add_argument("--keep", type=Path, metavar="FILE", help="results so far, one a line")
    found.add_argument("--checks", type=int, default=6, help="stretches, request by request")
    found.add_argument("--levels", type=int, default=20, help="of constant load")
    found.add_argument("--reports", type=int, default=10_000, help="random ones for the solver")
    return found


class _Level:
    """One level of constant load, when it is asked for."""

    def __init__(self, level: int, options: argparse.Namespace) -> None:
        self._level, self._levels = level, options.levels

    def __call__(self) -> dict[str, Any]:
        return dict(steadiness_rows(self._levels, self._level)[0])


class _Lazy:
    """Days that are read when something that is not kept asks for them."""

    def __init__(self, trace: str, batch: float, options: argparse.Namespace) -> None:
        self._asked = Path(options.folder), trace, batch, options.seed
        self._days: Days | None = None

    def read(self) -> Days:
        """The same days each time."""
        if self._days is None:
            self._days = read_days(*self._asked)
        return self._days

    def draws(self, count: int) -> list[Ticks]:
        """The reported week's rates with other bursts."""
        return draws_of(*self._asked, count)


def _days_rows(
    trace: str, batch: float, options: argparse.Namespace, kept: KeptRuns
) -> list[dict[str, Any]]:
    lazy, rows = _Lazy(trace, batch, options), []
    for one in _chosen(options, batch > 0):
        key = f"{trace} {batch} {one.name} {options.seed}"
        row = kept.once(key, partial(_made, one, lazy, options.seed, kept))
        rows.append(row)
    return rows


def _equal_rows(
    trace: str, batch: float, options: argparse.Namespace, kept: KeptRuns
) -> list[dict[str, Any]]:
    lazy, rows = _Lazy(trace, batch, options), []
    for one in _chosen(options, batch > 0):
        key = f"equal {trace} {batch} {one.name} {options.seed}"
        rows.append(kept.once(key, partial(_equal, one, lazy, options.seed, kept)))
    return rows


def _bound_rows(
    trace: str, batch: float, options: argparse.Namespace, kept: KeptRuns
) -> list[dict[str, Any]]:
    """With batch work, of which ten times as many prices have to be tried, bursts are known."""
    lazy, seed = _Lazy(trace, batch, options), options.seed
    key = f"bound {trace} {batch} {seed}"
    rows = [kept.once(key, lambda: burst_bound(lazy.read(), seed + 1))]
    if not batch:
        key = f"bound by rates {trace} {batch} {seed}"
        rows.append(kept.once(key, lambda: rates_bound(lazy.read(), lazy.draws(DRAWS))))
    return rows


def _equal(contender: Contender, lazy: _Lazy, seed: int, kept: KeptRuns) -> dict[str, Any]:
    return equal_row(contender, lazy.read(), seed, kept.once)


def _made(contender: Contender, lazy: _Lazy, seed: int, kept: KeptRuns) -> dict[str, Any]:
    return _measured(contender, lazy.read(), seed, kept)


def _check(lazy: _Lazy, number: int, seed: int) -> dict[str, Any]:
    return check_row(lazy.read(), number, seed)


def _chosen(options: argparse.Namespace, has_batch: bool) -> list[Contender]:
    everyone = [one for one in (*ON_DEMAND, *SPOT) if has_batch or one.gates != (True,)]
    return [one for one in everyone if not options.only or one.name.startswith(tuple(options.only))]


def _measured(contender: Contender, days: Days, seed: int, kept: KeptRuns) -> dict[str, Any]:
    begun_s = time.process_time()
    tuned = tune(contender, days, seed, kept.once)
    found = run(contender, tuned.params, days.kinds, days.reported, seed + 1)
    print(
        f"{days.name}: {contender.name} {found.usd:,.0f} USD, {found.met:.2%} in time "
        f"({time.process_time() - begun_s:.0f} s of CPU)",
        file=sys.stderr,
        flush=True,
    )
    return {
        "table": days.name,
        "system": contender.name,
        "usd": found.usd,
        "met_share": found.met,
        "usd_over_least": found.usd / least_usd(days),
        "replica_hours": found.replica_hours,
        "flaps_per_day": found.flaps / (found.seconds / 86_400),
        "slo_minutes_lost": found.minutes_lost,
        "recovery_after_burst_s": recovery_s(contender, tuned.params, days, seed),
        "late_batch_share": found.late_batch_share if days.has_batch else None,
        "spilt_share": found.spilt / found.urgent if found.urgent else None,
        "interrupted": found.interrupted,
        "spot": contender.spot,
        "ours": contender.ours,
        "params": tuned.params,
        "margin_standard_errors": tuned.margin,
        "grid": tuned.grid,
    }


def _check_rows(options: argparse.Namespace, kept: KeptRuns) -> list[Row]:
    lazy = _Lazy(*_CHECKED, options)
    return [
        kept.once(f"check {number} {options.seed}", partial(_check, lazy, number, options.seed))
        for number in range(options.checks)
    ]


if __name__ == "__main__":
    raise SystemExit(main())
