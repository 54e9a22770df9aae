"""From rows to comparisons and marks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from load_tests.autoscaling.days import LATE_BATCH, MET
from load_tests.report import Mark, Row

#: Cost of weir over that of a peer on demand, as the issue asks for it.
TARGETS = {
    "weir": 0.6,
    "weir, 2 % may spill": 0.6,
    "weir, with spot": 0.4,
    "weir, with spot, 2 % may spill": 0.4,
}
_TWIN, _FORECAST = "weir, margin by its own errors", "weir, foretelling by the day before"


def compare(table: list[dict[str, Any]]) -> None:
    """Adds to each row whether it kept the limits, and its cost over that of the cheapest peer with
    the same markets that did."""
    for row in table:
        row["kept_the_limits"] = missed(row) is None
    for spot in (False, True):
        peers = [row["usd"] for row in _peers(table, spot)]
        for row in table:
            if row["spot"] == spot and peers:
                row["usd_over_best_peer"] = row["usd"] / min(peers)


def _peers(table: Sequence[Row], spot: bool) -> list[Row]:
    """Those that kept the limits; not the one that no peer ships."""
    return [
        row
        for row in table
        if not row["ours"]
        and row["spot"] == spot
        and missed(row) is None
        and "by hand" not in str(row["system"])
    ]


def missed(row: Row) -> str | None:
    """Which limit a row did not keep in the reported week; None: it kept both."""
    if row["met_share"] < MET:
        return f"had {row['met_share']:.1%} in time in the reported week"
    if (late := row["late_batch_share"] or 0.0) > LATE_BATCH:
        return f"had {late:.1%} of the batch work late in the reported week"
    return None


def cost_marks(table: Sequence[Row]) -> list[Mark]:
    """Cost against each peer on demand, for those of weir's rows that are here."""
    found = {str(row["system"]): row for row in table}
    marks: list[Mark] = []
    for system, target in TARGETS.items():
        if system not in found:
            continue
        row = found[system]
        peers = [peer for peer in table if not peer["ours"] and not peer["spot"]]
        for peer in peers:
            if "by hand" in str(peer["system"]):
                continue
            name = f"{row['table']}: cost of {system} over {peer['system']}"
            late = missed(peer)
            reason = None if late is None else f"that peer {late}"
            value = None if reason else row["usd"] / peer["usd"]
            marks.append(Mark(name, value, "x", target, "lower", reason))
        name = f"{row['table']}: {system}, requests in time"
        marks.append(Mark(name, row["met_share"], "share", MET, "higher"))
    if _TWIN in found and _FORECAST in found:
        name = f"{found[_TWIN]['table']}: cost of the forecast over its reactive twin"
        value = found[_FORECAST]["usd"] / found[_TWIN]["usd"]
        marks.append(Mark(name, value, "x", 1.0, "lower"))
    return marks


def fixed_marks(rows: Sequence[Row]) -> list[Mark]:
    """Constant load and the programme."""
    flaps = sum(
        row["changes_after_the_first_hour"] for row in rows if "changes_after_the_first_hour" in row
    )
    solver = next(row for row in rows if row.get("table") == "solver")
    return [
        Mark("changes under constant load", float(flaps), "changes", 0.0, "lower"),
        Mark("dearer than greedy", float(solver["dearer_than_greedy"]), "reports", 0.0, "lower"),
        Mark("infeasible without saying so", float(solver["silent"]), "reports", 0.0, "lower"),
        Mark("over the limit of nodes", float(solver["over_nodes"]), "reports", 0.0, "lower"),
    ]
