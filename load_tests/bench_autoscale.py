"""``weir bench autoscale``: what capacity costs by weir's policy and by its peers', over days.

ServeGen's 14 days of rates per client, through the policies that ship, in a fluid model of the
fleet (``load_tests/autoscaling``): Llama-3.3-70B in FP8 on pairs of H100 or one H200, TTFT 2 s and
TPOT 50 ms. Each policy is tuned by a grid on the first week, for the least cost at which 99 % of
urgent requests are within both limits; the second week is reported.
``usd_over_best_peer`` compares with the cheapest peer of the same table that kept the limits. Peers
get one kind of replica, the cheapest for the traffic; weir chooses among kinds. Batch work may wait
for six hours.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from load_tests.autoscaling.contenders import ON_DEMAND, SPOT, Contender
from load_tests.autoscaling.days import Days, read_days, run, tune
from load_tests.autoscaling.programme import solver_rows
from load_tests.autoscaling.steadiness import steadiness_rows
from load_tests.disaggregation.traffic import SHARED
from load_tests.report import Mark, Report, Row, bench_parser, emit

_MET = 0.99


def main(argv: Sequence[str] | None = None) -> int:
    """Run and print; exit code 0 when the bench ran, whatever the marks."""
    options = parser().parse_args(argv)
    rows: list[Row] = []
    marks: list[Mark] = []
    for trace in options.traces:
        for batch in options.batch_shares:
            days = read_days(Path(options.folder), trace, batch, options.seed)
            table = [_measured(one, days, options) for one in _chosen(options)]
            _compare(table)
            rows += table
            marks += _cost_marks(days.name, table)
    if not options.only_days:
        rows += steadiness_rows(options.levels)
        rows += solver_rows(options.reports, options.seed)
        marks += _fixed_marks(rows)
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
    found.add_argument("--levels", type=int, default=20, help="of constant load")
    found.add_argument("--reports", type=int, default=10_000, help="random ones for the solver")
    return found


def _chosen(options: argparse.Namespace) -> list[Contender]:
    everyone = [*ON_DEMAND, *SPOT]
    return [one for one in everyone if not options.only or one.name.startswith(tuple(options.only))]


def _measured(contender: Contender, days: Days, options: argparse.Namespace) -> dict[str, Any]:
    tuned = tune(contender, days, options.seed)
    found = run(contender, tuned.params, days.kinds, days.reported, options.seed + 1)
    print(f"{days.name}: {contender.name} {found.usd:,.0f} USD", file=sys.stderr, flush=True)
    return {
        "table": days.name,
        "system": contender.name,
        "usd": found.usd,
        "met_share": found.met,
        "replica_hours": found.replica_hours,
        "flaps_per_day": found.flaps / (found.seconds / 86_400),
        "slo_minutes_lost": found.minutes_lost,
        "late_batch_share": found.late_batch / found.batch if found.batch else None,
        "spilt_share": found.spilt / found.urgent if found.urgent else None,
        "interrupted": found.interrupted,
        "params": {name: round(value, 3) for name, value in tuned.params.items()},
        "grid": tuned.grid,
    }


def _compare(table: list[dict[str, Any]]) -> None:
    """Adds the cost over that of the cheapest peer that kept the limits."""
    for spot in (False, True):
        peers = [
            row["usd"]
            for row in table
            if not row["system"].startswith("weir")
            and row["met_share"] >= _MET
            and (spot or "spot" not in row["system"])
        ]
        for row in table:
            if ("spot" in row["system"]) == spot and peers:
                row["usd_over_best_peer"] = row["usd"] / min(peers)


def _cost_marks(days: str, table: Sequence[Row]) -> list[Mark]:
    found = {str(row["system"]): row for row in table}
    marks = []
    for system, target in (("weir", 0.6), ("weir, with spot", 0.4)):
        if system not in found:
            continue
        peers = [
            row["usd"]
            for row in table
            if not str(row["system"]).startswith("weir")
            and "spot" not in str(row["system"])
            and row["met_share"] >= _MET
        ]
        name = f"{days}: cost of {system} over the cheapest peer on demand"
        if not peers:
            reason = "no peer kept the limits on the reported week"
            marks.append(Mark(name, None, "x", target, "lower", reason))
            continue
        marks.append(Mark(name, found[system]["usd"] / min(peers), "x", target, "lower"))
        met = found[system]["met_share"]
        marks.append(Mark(f"{days}: {system}, requests in time", met, "share", _MET, "higher"))
    return marks


def _fixed_marks(rows: Sequence[Row]) -> list[Mark]:
    flaps = sum(
        row["changes_after_the_first_hour"] for row in rows if "changes_after_the_first_hour" in row
    )
    solver = next(row for row in rows if row.get("table") == "solver")
    return [
        Mark("changes under constant load", float(flaps), "changes", 0.0, "lower"),
        Mark("dearer than greedy", float(solver["dearer_than_greedy"]), "reports", 0.0, "lower"),
        Mark("infeasible without saying so", float(solver["silent"]), "reports", 0.0, "lower"),
    ]


if __name__ == "__main__":
    raise SystemExit(main())
