"""What a report is made of, as the database has it: replicas' time and work, hour by hour."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Row, case, func, literal, select

from weir.ledger.allocation import Pace, paid_nano_usd
from weir.ledger.tables import replica_hours, usage_sums
from weir.ledger.usage import By, Period, group_name, sum_column

#: A model and one of its pools, which is empty where it has none.
Pool = tuple[str, str]
_WORK = (
    "prompt_tokens",
    "cached_tokens",
    "output_tokens",
    "prefill_us",
    "decode_us",
    "untold_prompt_tokens",
    "untold_output_tokens",
)


@dataclass(frozen=True, slots=True)
class Group:
    """Whose work it is. ``wanted``: whether the report is to show it."""

    name: str
    wanted: bool = True


@dataclass(slots=True)
class PoolHour:
    """One hour of one pool: its replicas' time and price, in nano-USD, and each group's work."""

    wall_ms: int = 0
    paid: int = 0
    on_demand: int = 0
    cached_tokens: int = 0
    work_us: Counter[Group] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class Spending:
    """``hours`` by the hour's beginning and the pool; ``requests`` and ``billed`` (nano-USD) by
    group. ``student``: what spilled requests would have been billed more, in nano-USD."""

    hours: Mapping[tuple[int, Pool], PoolHour]
    paces: Mapping[Pool, Pace]
    requests: Counter[Group]
    billed: Counter[Group]
    student: int


def read_spending(
    connection: Connection, by: By, period: Period, tenant: str | None = None
) -> Spending:
    """Everything in a period, grouped.

    Raises:
        BadRequestError: ``by`` is unknown.
    """
    hours: dict[tuple[int, Pool], PoolHour] = defaultdict(PoolHour)
    _add_replica_time(connection, period, hours)
    rows = _work(connection, by, period, tenant)
    paces = _paces(rows)
    requests: Counter[Group] = Counter()
    billed: Counter[Group] = Counter()
    student = 0
    for row in rows:
        pool = (row.model, row.pool)
        group = Group(group_name(by, row.by), bool(row.wanted))
        hour, pace = hours[int(row.hour_ms), pool], paces[pool]
        untold = (int(row.untold_prompt_tokens), int(row.untold_output_tokens))
        work_us = int(row.prefill_us) + int(row.decode_us) + pace.work_us(*untold)
        hour.work_us[group] += work_us
        hour.cached_tokens += int(row.cached_tokens)
        requests[group] += int(row.requests)
        billed[group] += int(row.nano_usd)
        student += int(row.asked_nano_usd) - int(row.nano_usd)
    return Spending(hours, paces, requests, billed, student)


def _add_replica_time(
    connection: Connection, period: Period, hours: dict[tuple[int, Pool], PoolHour]
) -> None:
    table = replica_hours.c
    for row in connection.execute(select(replica_hours).where(period.of(table.hour_ms))):
        hour = hours[int(row.hour_ms), (row.model, row.pool)]
        time_ms = row.last_ms - row.first_ms
        hour.wall_ms += time_ms
        hour.paid += paid_nano_usd(time_ms, row.nano_usd_per_hour)
        hour.on_demand += paid_nano_usd(time_ms, row.on_demand_nano_usd_per_hour)


def _work(connection: Connection, by: By, period: Period, tenant: str | None) -> list[Row[Any]]:
    table = usage_sums.c
    wanted = literal(1) if tenant is None else case((table.tenant == tenant, 1), else_=0)
    keys = [
        table.hour_ms,
        table.model,
        table.pool,
        sum_column(by).label("by"),
        wanted.label("wanted"),
    ]
    names = (*_WORK, "requests", "nano_usd", "asked_nano_usd")
    sums = [func.sum(table[name]).label(name) for name in names]
    grouped: list[Any] = [table.hour_ms, table.model, table.pool, "by", "wanted"]
    statement = select(*keys, *sums).where(period.of(table.hour_ms))
    return list(connection.execute(statement.group_by(*grouped).order_by(*grouped)))


def _paces(rows: list[Row[Any]]) -> dict[Pool, Pace]:
    """How long a token took in each pool, by the legs whose replicas have told."""
    told: dict[Pool, Counter[str]] = defaultdict(Counter)
    for row in rows:
        sums = told[row.model, row.pool]
        for name in _WORK:
            sums[name] += int(getattr(row, name))
    return {
        pool: Pace.of(
            sums["prefill_us"],
            sums["prompt_tokens"] - sums["cached_tokens"] - sums["untold_prompt_tokens"],
            sums["decode_us"],
            sums["output_tokens"] - sums["untold_output_tokens"],
        )
        for pool, sums in told.items()
    }
