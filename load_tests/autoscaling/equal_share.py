"""Cost at the same share in time, of policies that kept different shares of the reported week.

What a contender's choice by the tuning week comes to in the reported week is what an operator would
get, and the plain table says so. But most choices end a little below or above the share that is
asked for, and a policy that is late more often is cheaper for that alone: such costs cannot be
compared. So the share that the tuning week is asked for is moved, in the same steps for everybody;
each step is the combination that the tuning week chooses for it, and is run over the reported week.
Of these points, cost at exactly the share is read off the straight line between the two at which
the reported week passes it, which is what running the one for a part of the week and the other for
the rest would cost.

Nothing but the step is chosen by the reported week: no combination is picked by it, and a contender
with a larger grid has no more tries than others. It is a comparison in hindsight all the same, like
an operator who had turned one knob to the right place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from load_tests.autoscaling.contenders import Contender
from load_tests.autoscaling.days import LATE_BATCH, MET, Days, Once, run, try_all
from load_tests.autoscaling.tuning import chosen
from load_tests.report import Mark, Row

#: Shares in time that the tuning week is asked for, one after the other.
STEPS = (0.9, 0.93, 0.95, 0.96, 0.97, 0.975, 0.98, 0.985, 0.99, 0.9925, 0.995, 0.9975)


@dataclass(frozen=True, slots=True)
class Point:
    """What the choice for one step came to in the reported week."""

    asked: float
    usd: float
    met: float
    late_batch: float


@dataclass(frozen=True, slots=True)
class AtShare:
    """``usd`` None: the share is not reached. ``late_batch``: the larger of the two points'.
    ``bound``: every step keeps the share, so ``usd``, the cheapest of them, is the most that it
    costs."""

    usd: float | None
    late_batch: float | None
    reason: str = ""
    bound: bool = False


def at_share(points: Sequence[Point], share: float) -> AtShare:
    """Cost at ``share``. ``points`` in the order of their steps. Where the share is passed more
    than once, the last time counts: from there on every step keeps it."""
    if (least := min(point.met for point in points)) >= share:
        cheap = min(points, key=lambda point: point.usd)
        reason = f"at least {least:.2%} in time at every step: the share itself costs no more"
        return AtShare(cheap.usd, cheap.late_batch, reason, bound=True)
    passing = [pair for pair in pairwise(points) if pair[0].met < share <= pair[1].met]
    if points[-1].met < share or not passing:
        best = max(point.met for point in points)
        return AtShare(None, None, f"at most {best:.2%} in time in the reported week")
    below, above = passing[-1]
    part = (share - below.met) / (above.met - below.met)
    usd = below.usd + part * (above.usd - below.usd)
    return AtShare(usd, max(below.late_batch, above.late_batch))


def points_of(contender: Contender, days: Days, seed: int, once: Once) -> list[Point]:
    """One for each of :data:`STEPS`; steps that choose the same are run once."""
    tried, points = try_all(contender, days, seed, once), list[Point]()
    for asked in STEPS:
        params = chosen(tried, asked, LATE_BATCH, 0.0).params
        key = f"reported {days.name} {contender.name} {sorted(params.items())} {seed}"

        def ran(params: dict[str, Any] = params) -> dict[str, Any]:
            out = run(contender, params, days.kinds, days.reported, seed + 1)
            return {"usd": out.usd, "met": out.met, "late_batch": out.late_batch_share}

        points.append(Point(asked, **once(key, ran)))
    return points


def equal_row(contender: Contender, days: Days, seed: int, once: Once) -> dict[str, Any]:
    """One row of the table beside the plain one."""
    points = points_of(contender, days, seed, once)
    found = at_share(points, MET)
    if found.late_batch is not None and found.late_batch > LATE_BATCH:
        found = AtShare(None, found.late_batch, f"{found.late_batch:.1%} of the batch work late")
    row: dict[str, Any] = {
        "table": f"{days.name}: cost at {MET:.0%} of the reported week, in hindsight",
        "system": contender.name,
        "usd_at_share": found.usd,
        "is_bound": found.bound,
        "late_batch_share": found.late_batch if days.has_batch else None,
        "spot": contender.spot,
        "ours": contender.ours,
        "steps": [[each.asked, each.met, each.usd] for each in points],
    }
    return row | ({"reason": found.reason} if found.reason else {})


def compare_equal(table: list[dict[str, Any]]) -> None:
    """Adds to each row its cost over that of the cheapest peer with the same markets. Peers of
    which only a bound is known are not among them."""
    for spot in (False, True):
        peers = [row["usd_at_share"] for row in _peers(table, spot) if _is_known(row)]
        for row in table:
            if row["spot"] == spot and peers and row["usd_at_share"]:
                row["over_best_peer"] = row["usd_at_share"] / min(peers)


def equal_marks(table: Sequence[Row], targets: dict[str, float]) -> list[Mark]:
    """Each of ``targets`` (weir's rows) over each peer on demand, at the same share. A bound of
    weir's own cost is taken for the cost, one of a peer's is not."""
    found = {str(row["system"]): row for row in table}
    marks = []
    for system, target in targets.items():
        if (own := found.get(system)) is None:
            continue
        for peer in _peers(table, spot=False):
            name = f"{own['table']}: {system} over {peer['system']}"
            told = own if own.get("reason") else peer
            reason = f"{told['system']}: {told['reason']}" if told.get("reason") else None
            known = own["usd_at_share"] is not None and _is_known(peer)
            value = own["usd_at_share"] / peer["usd_at_share"] if known else None
            marks.append(Mark(name, value, "x", target, "lower", reason))
    return marks


def _is_known(row: Row) -> bool:
    return row["usd_at_share"] is not None and not row["is_bound"]


def _peers(table: Sequence[Row], spot: bool) -> list[Row]:
    """All but the one that no peer ships."""
    return [
        row
        for row in table
        if not row["ours"] and row["spot"] == spot and "by hand" not in str(row["system"])
    ]
