"""What a report is made of, as the database has it: replicas' time and work, hour by hour."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sqlalchemy import Connection, case, func, literal, select

from weir.ledger.allocation import Pace, paid_nano_usd
from weir.ledger.tables import replica_hours, usage_sums
from weir.ledger.usage import By, Period, group_name, sum_column

#: A model and one of its pools, which is empty where it has none.
Pool = tuple[str, str]


class Group(NamedTuple):
    """Whose work it is. ``wanted``: whether the report is to show it."""

    name: str
    wanted: bool = True


@dataclass(slots=True)
class PoolHour:
    """One hour of one pool: its replicas' time and price, in nano-USD, and each group's work, in
    parts of a microsecond (:class:`weir.ledger.allocation.Pace`)."""

    wall_ms: int = 0
    paid: int = 0
    on_demand: int = 0
    cached_tokens: int = 0
    work: dict[Group, int] = field(default_factory=dict)


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
    paces = _paces(connection, period)
    groups = _Groups(by)
    requests: Counter[Group] = Counter()
    billed: Counter[Group] = Counter()
    student = 0
    # Hundreds of thousands of rows, for a month of many tenants: no more than this for each.
    for hour_ms, model, of_pool, value, wanted, *sums in _work(connection, by, period, tenant):
        told_us, prompt, output, cached, count, nano_usd, asked_nano_usd = map(int, sums)
        group, pool = groups[value, wanted], (model, of_pool)
        hour, work = hours[int(hour_ms), pool], paces[pool].work(told_us, prompt, output)
        hour.work[group] = hour.work.get(group, 0) + work
        hour.cached_tokens += cached
        requests[group] += count
        billed[group] += nano_usd
        student += asked_nano_usd - nano_usd
    return Spending(hours, paces, requests, billed, student)


class _Groups(dict[tuple[Any, int], Group]):
    """Groups by their value in the database."""

    def __init__(self, by: By) -> None:
        super().__init__()
        self._by = by

    def __missing__(self, key: tuple[Any, int]) -> Group:
        value, wanted = key
        group = self[key] = Group(group_name(self._by, value), bool(wanted))
        return group


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


def _work(
    connection: Connection, by: By, period: Period, tenant: str | None
) -> Iterable[Sequence[Any]]:
    """Hour, model, pool, group, whether it is wanted; then sums: told work (microseconds), prompt
    and output tokens of which none was told, cached tokens, requests, and two prices."""
    table = usage_sums.c
    wanted = literal(1) if tenant is None else case((table.tenant == tenant, 1), else_=0)
    sums = [
        table.prefill_us + table.decode_us,
        table.untold_prompt_tokens,
        table.untold_output_tokens,
        table.cached_tokens,
        table.requests,
        table.nano_usd,
        table.asked_nano_usd,
    ]
    keys = [table.hour_ms, table.model, table.pool]
    names: list[Any] = [*keys, "by", "wanted"]
    statement = select(
        *keys, sum_column(by).label("by"), wanted.label("wanted"), *(func.sum(s) for s in sums)
    ).where(period.of(table.hour_ms))
    return connection.execute(statement.group_by(*names).order_by(*names)).all()


def _paces(connection: Connection, period: Period) -> dict[Pool, Pace]:
    """How long a token took in each pool, by the legs whose replicas have told."""
    table = usage_sums.c
    told = (
        table.prefill_us,
        table.prompt_tokens - table.cached_tokens - table.untold_prompt_tokens,
        table.decode_us,
        table.output_tokens - table.untold_output_tokens,
    )
    statement = select(table.model, table.pool, *(func.sum(each) for each in told))
    statement = statement.where(period.of(table.hour_ms)).group_by(table.model, table.pool)
    return {
        (model, pool): Pace.of(*map(int, sums))
        for model, pool, *sums in connection.execute(statement)
    }
