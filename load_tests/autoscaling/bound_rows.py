"""Rows of the lower bounds, beside the cheapest peer and beside weir."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from load_tests.autoscaling.bound import Bound, Limits, Scheduled, Week, lower_bound
from load_tests.autoscaling.contenders import usd_per_request
from load_tests.autoscaling.days import (
    BATCH_WITHIN_S,
    LATE_BATCH,
    MET,
    SLO,
    SPOT_PRICE,
    Days,
    least_usd,
)
from load_tests.autoscaling.fleet import Outcome, PoolKind, World
from load_tests.autoscaling.fluid import Fluid
from load_tests.autoscaling.traces import Ticks
from load_tests.report import Mark, Row

#: Draws of a week's rates, for what only the rates are known of.
DRAWS = 4
EVERY_BURST, RATES_ALONE = "every burst is known", "the rates are known, bursts are not"


def burst_bound(days: Days, seed: int) -> dict[str, Any]:
    """What the reported week costs at least if all arrivals are known, and what a schedule that
    knows them comes to in the fluid model, which has none of the bound's relaxations."""
    kind = cheapest_kind(days)
    found = _found(kind, [days.reported], with_schedule=not days.has_batch)
    row = _row(days, EVERY_BURST, found)
    if not days.has_batch:
        out = replayed(kind, found, days.reported, seed)
        row |= {"schedule_usd": out.usd, "schedule_met_share": out.met}
    return row


def rates_bound(days: Days, draws: Sequence[Ticks]) -> dict[str, Any]:
    """The same if only each client's rate in each ten minutes of the week is known. ``draws``: of
    the reported week."""
    return _row(days, RATES_ALONE, _found(cheapest_kind(days), draws, with_schedule=False))


def _found(kind: PoolKind, known: Sequence[Ticks], with_schedule: bool) -> Bound:
    limits = Limits(MET, LATE_BATCH, BATCH_WITHIN_S, SLO.ttft_s)
    return lower_bound(Week(kind, known, limits), usd_per_request(kind), with_schedule)


def _row(days: Days, system: str, found: Bound) -> dict[str, Any]:
    return {
        "table": f"{days.name}: what the reported week costs at least",
        "system": system,
        "least_usd": found.usd,
        "fractions_of_replicas_usd": least_usd(days),
    }


def cheapest_kind(days: Days) -> PoolKind:
    """On demand, for the traffic: what peers are given."""
    return min((k for k in days.kinds if k.state.market == "on_demand"), key=usd_per_request)


def replayed(kind: PoolKind, found: Bound, ticks: Ticks, seed: int) -> Outcome:
    """The bound's schedule in the fluid model."""
    state = kind.state
    policy = Scheduled(state.name, found.counts, ticks.tick_s, state.start_s)
    world = World((kind,), SLO.ttft_s, SLO.tpot_s, seed=seed)
    return Fluid(world, policy, ticks).run(policy.at_first)


def compare_bounds(
    bounds: Sequence[dict[str, Any]], plain: Sequence[Row], equal: Sequence[Row]
) -> None:
    """Adds to each bound what it is over the cheapest peer on demand, as tuned and at the same
    share in time, the same with spot replicas that nobody takes away, and what weir is over it."""
    tuned = [r["usd"] for r in plain if _is_peer(r) and r["kept_the_limits"]]
    same = [r["usd_at_share"] for r in equal if _is_peer(r) and _is_known(r)]
    own = [r["usd_at_share"] for r in equal if r["system"] == "weir" and r["usd_at_share"]]
    for row in bounds:
        least = row["least_usd"]
        row["over_best_peer"] = least / min(tuned) if tuned else None
        row["over_best_peer_at_share"] = least / min(same) if same else None
        if peers := tuned + same:
            row["spot_over_best_peer"] = SPOT_PRICE * least / min(peers)
        row["weir_over_it"] = own[0] / least if own else None


def _is_peer(row: Row) -> bool:
    return not row["ours"] and not row["spot"] and "by hand" not in str(row["system"])


def _is_known(row: Row) -> bool:
    return row["usd_at_share"] is not None and not row["is_bound"]


def bound_marks(bounds: Sequence[Row], target: float) -> list[Mark]:
    """Whether anybody can have ``target`` of the cheapest peer's cost, without spot and student:
    at the same share in time, or as tuned where no peer's cost there is known."""
    marks = []
    for row in bounds:
        value = row["over_best_peer_at_share"] or row["over_best_peer"]
        name = f"{row['table']}, where {row['system']}, over the cheapest peer"
        reason = None if value else "no peer kept the limits"
        marks.append(Mark(name, value, "x", target, "lower", reason))
    return marks
