"""What the platform cost, who bears it, and what caches, students and spot machines have saved."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, fields
from decimal import Decimal
from typing import Any

from sqlalchemy import Engine

from weir.cost import usd_of
from weir.database import reading
from weir.ledger.allocation import Pace, allocate
from weir.ledger.spending import Group, Pool, Spending, read_spending
from weir.ledger.usage import By, Period


@dataclass(frozen=True, slots=True)
class CostRow:
    """What one group bears of the replicas' cost, and what its tenants are billed for it.
    ``replica_hours``: the time that its work took."""

    group: str
    requests: int
    replica_hours: Decimal
    cost_usd: Decimal
    billed_usd: Decimal


@dataclass(frozen=True, slots=True)
class PoolRow:
    """A pool's replicas: how long they were up, what was paid for that, and what of it was idle."""

    model: str
    pool: str
    replica_hours: Decimal
    paid_usd: Decimal
    idle_usd: Decimal


@dataclass(frozen=True, slots=True)
class Saved:
    """What did not have to be paid.

    ``cache_usd``: replicas' time for prompt tokens that were cached, at what the others took.
    ``student_usd``: what requests that spilled would have been billed by the model that was asked
    for, less what they were. ``spot_usd``: the same replicas' price in a market without
    interruptions, less theirs.
    """

    cache_usd: Decimal = Decimal(0)
    student_usd: Decimal = Decimal(0)
    spot_usd: Decimal = Decimal(0)


@dataclass(frozen=True, slots=True)
class CostReport:
    """``paid_usd`` is the sum of the rows' ``cost_usd`` and of the pools' ``idle_usd``, exactly."""

    by: By
    rows: tuple[CostRow, ...]
    pools: tuple[PoolRow, ...]
    saved: Saved
    paid_usd: Decimal
    idle_usd: Decimal
    billed_usd: Decimal

    def told(self) -> dict[str, Any]:
        """As JSON has it: amounts are decimal text."""
        return {
            "by": self.by,
            "paid_usd": f"{self.paid_usd:f}",
            "idle_usd": f"{self.idle_usd:f}",
            "billed_usd": f"{self.billed_usd:f}",
            "rows": [_told(row) for row in self.rows],
            "pools": [_told(row) for row in self.pools],
            "saved": _told(self.saved),
        }


def cost_report(
    engine: Engine, by: By = "tenant", period: Period | None = None, tenant: str | None = None
) -> CostReport:
    """Share what was paid among the groups. With ``tenant``, rows are of that one only, and
    everything else is as without.

    Raises:
        BadRequestError: ``by`` is unknown.
        DatabaseAwayError: the database does not answer.
    """
    with reading(engine) as connection:
        return make_report(by, read_spending(connection, by, period or Period(), tenant))


def make_report(by: By, spending: Spending) -> CostReport:
    """The report of what was spent."""
    costs: Counter[Group] = Counter()
    work: Counter[Group] = Counter()
    pools: dict[Pool, Counter[str]] = defaultdict(Counter)
    cache = 0
    for (_, pool), hour in sorted(spending.hours.items()):
        pace = spending.paces.get(pool, Pace())
        wall = hour.wall_ms * 1000 * pace.parts
        shared = allocate(hour.paid, wall, hour.work)
        costs.update(shared.nano_usd)
        for group, own in hour.work.items():
            work[group] += own // pace.parts
        pools[pool]["wall_ms"] += hour.wall_ms
        pools[pool]["paid"] += hour.paid
        pools[pool]["idle"] += shared.idle_nano_usd
        pools[pool]["spot"] += hour.on_demand - hour.paid
        if hour.cached_tokens and (whole := max(wall, sum(hour.work.values()))):
            cache += hour.paid * hour.cached_tokens * pace.prefill // whole
    rows = tuple(
        CostRow(
            group.name,
            requests,
            _hours(work[group], 1000),
            usd_of(costs[group]),
            usd_of(spending.billed[group]),
        )
        for group, requests in sorted(spending.requests.items(), key=lambda item: item[0].name)
        if group.wanted
    )
    spot = sum(sums["spot"] for sums in pools.values())
    return CostReport(
        by,
        rows,
        tuple(_pool_row(pool, sums) for pool, sums in sorted(pools.items())),
        Saved(usd_of(cache), usd_of(spending.student), usd_of(spot)),
        usd_of(sum(sums["paid"] for sums in pools.values())),
        usd_of(sum(sums["idle"] for sums in pools.values())),
        usd_of(spending.billed.total()),
    )


def _pool_row(pool: Pool, sums: Counter[str]) -> PoolRow:
    return PoolRow(*pool, _hours(sums["wall_ms"]), usd_of(sums["paid"]), usd_of(sums["idle"]))


def _hours(time: int, per_ms: int = 1) -> Decimal:
    """Hours, to a hundred-thousandth."""
    exact = Decimal(time) / (3_600_000 * per_ms)
    return exact.quantize(Decimal("0.00001"))


def _told(row: Any) -> dict[str, Any]:
    told = {each.name: getattr(row, each.name) for each in fields(row)}
    return {
        name: f"{value:f}" if isinstance(value, Decimal) else value for name, value in told.items()
    }
