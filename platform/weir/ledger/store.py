"""Puts records into the database: each once, however often it arrives."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy import Connection, Engine, String, Table, case, delete, insert, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError

from weir.database import writing
from weir.ledger.lines import paid_once
from weir.ledger.orphans import Row, hold_others_back, take_off, without_booked
from weir.ledger.rates import FREE, Rates
from weir.ledger.record import Entry, Part, ReplicaTime, UsageRecord
from weir.ledger.slo import SLO_KEYS, SLO_SUMS, slo_rows, slo_sums
from weir.ledger.tables import (
    HOUR_MS,
    SUM_KEYS,
    SUMS,
    billed_lines,
    ledger_outboxes,
    replica_hours,
    usage_records,
    usage_sums,
)

_AT_ONCE = 500
_ATTEMPTS = 5
#: A replica's time is told in stretches far shorter than that.
_MOST_HOURS = 24 * 40


@dataclass(frozen=True, slots=True)
class Arrived:
    """Records of one outbox, with the numbers from ``first`` to before ``end``. ``base``: the
    outbox knows that the database has everything before that number."""

    outbox: str
    first: int
    end: int
    entries: Sequence[Entry]
    base: int = 0


def store(engine: Engine, arrived: Sequence[Arrived], rates: Rates, now_ms: int) -> dict[str, int]:
    """Put them in, in one transaction.

    Returns, for each outbox, up to which number the database has everything.

    Raises:
        DatabaseAwayError: the database does not answer; nothing was put in.
    """
    for attempt in range(_ATTEMPTS):
        try:
            with writing(engine) as connection:
                return _store(connection, arrived, rates, now_ms)
        except IntegrityError:
            # Another writer has put the same record in since we looked.
            if attempt == _ATTEMPTS - 1:
                raise
    raise AssertionError("unreachable")


def prune(engine: Engine, before_ms: int) -> None:
    """Remove records of legs that ended before then, and marks of outboxes that are long gone.
    Sums and replica-hours stay.

    Raises:
        DatabaseAwayError: the database does not answer.
    """
    with writing(engine) as connection:
        for table in (usage_records, billed_lines):
            connection.execute(delete(table).where(table.c.ended_ms < before_ms))
        gone = ledger_outboxes.c.updated_ms < before_ms
        connection.execute(delete(ledger_outboxes).where(gone))


def _store(
    connection: Connection, arrived: Sequence[Arrived], rates: Rates, now_ms: int
) -> dict[str, int]:
    entries = [entry for each in arrived for entry in each.entries]
    records = {e.leg: e for e in entries if isinstance(e, UsageRecord)}
    hold_others_back(connection, records.values())
    for leg in _known(connection, list(records)):
        del records[leg]
    records = paid_once(connection, without_booked(connection, records))
    if records:
        rows = [_row(record) for record in records.values()]
        connection.execute(insert(usage_records), rows)
        changed = take_off(connection, records)
        _add(connection, usage_sums, SUM_KEYS, SUMS, _sums(rows, changed))
        if kept := slo_rows(records.values()):
            _add(connection, slo_sums, SLO_KEYS, SLO_SUMS, kept)
    _store_hours(connection, [e for e in entries if isinstance(e, ReplicaTime)], rates)
    return _advance(connection, arrived, now_ms)


def _known(connection: Connection, legs: list[str]) -> Iterator[str]:
    column = usage_records.c.leg
    for begin in range(0, len(legs), _AT_ONCE):
        some = legs[begin : begin + _AT_ONCE]
        yield from connection.scalars(select(column).where(column.in_(some)))


def _row(record: UsageRecord) -> dict[str, Any]:
    row = msgspec.structs.asdict(record)
    del row["slo"], row["ttft_ms"]  # summed, not kept
    row["part"], row["loss"] = record.part.value, record.loss.value
    for name, longest in _TEXTS.items():
        value = row[name]
        if len(value) > longest or "\0" in value:
            row[name] = value.replace("\0", "")[:longest]
    return row


#: PostgreSQL refuses what is longer.
_TEXTS: dict[str, int] = {
    column.name: column.type.length
    for column in usage_records.c
    if isinstance(column.type, String) and column.type.length
}


def _sums(rows: Iterable[Row], changed: Iterable[tuple[Row, Row]] = ()) -> list[Row]:
    """Rows of :data:`usage_sums`, in the order of their keys: writers then lock them in one
    order. ``changed``: rows that are there, as they were and as they are."""
    found: dict[tuple[Any, ...], list[int]] = {}

    def add(row: Row, sign: int = 1) -> None:
        hour_ms = row["ended_ms"] // HOUR_MS * HOUR_MS
        key = (hour_ms, *(row[name] for name in SUM_KEYS[1:]))
        values = found.setdefault(key, [0] * len(SUMS))
        for i, value in enumerate(_summed(row)):
            values[i] += sign * value

    for row in rows:
        add(row)
    for before, after in changed:
        add(before, -1)
        add(after)
    return [
        dict(zip((*SUM_KEYS, *SUMS), (*key, *found[key]), strict=True)) for key in sorted(found)
    ]


def _summed(row: dict[str, Any]) -> tuple[int, ...]:
    """In the order of :data:`SUMS`."""
    computed = row["prompt_tokens"] - row["cached_tokens"]
    return (
        row["requests"],
        int(row["part"] == Part.WHOLE),
        row["prompt_tokens"],
        row["cached_tokens"],
        row["output_tokens"],
        row["billed_prompt_tokens"],
        row["billed_cached_tokens"],
        row["billed_output_tokens"],
        row["images"],
        row["nano_usd"],
        row["asked_nano_usd"] or row["nano_usd"],
        row["prefill_us"] or 0,
        row["decode_us"] or 0,
        computed if row["prefill_us"] is None else 0,
        row["output_tokens"] if row["decode_us"] is None else 0,
    )


def _add(
    connection: Connection,
    table: Table,
    keys: Sequence[str],
    values: Sequence[str],
    rows: list[dict[str, Any]],
) -> None:
    """Insert rows, or add their values to those that are there."""
    statement = _upserting(connection)(table)
    added = {name: table.c[name] + statement.excluded[name] for name in values}
    connection.execute(statement.on_conflict_do_update(index_elements=keys, set_=added), rows)


def _store_hours(connection: Connection, told: Sequence[ReplicaTime], rates: Rates) -> None:
    hours: dict[tuple[int, str], dict[str, Any]] = {}
    for time in told:
        usual = rates.get((time.model, time.pool), FREE)
        for hour_ms, first_ms, last_ms in _hours(time):
            rate = usual.at(hour_ms / 1000)
            row = hours.setdefault(
                (hour_ms, time.replica),
                {
                    "hour_ms": hour_ms,
                    "replica": time.replica[:128],
                    "model": time.model,
                    "pool": time.pool,
                    "first_ms": first_ms,
                    "last_ms": last_ms,
                    "market": rate.market,
                    "nano_usd_per_hour": rate.nano_usd_per_hour,
                    "on_demand_nano_usd_per_hour": rate.on_demand_nano_usd_per_hour,
                },
            )
            row["first_ms"] = min(row["first_ms"], first_ms)
            row["last_ms"] = max(row["last_ms"], last_ms)
    if not hours:
        return
    statement, here = _upserting(connection)(replica_hours), replica_hours.c
    new = statement.excluded
    wider = {
        "first_ms": case((new.first_ms < here.first_ms, new.first_ms), else_=here.first_ms),
        "last_ms": case((new.last_ms > here.last_ms, new.last_ms), else_=here.last_ms),
    }
    # A new price is one from now on: it changes no hour of which nothing new is told.
    for name in ("market", "nano_usd_per_hour", "on_demand_nano_usd_per_hour"):
        wider[name] = case((new.last_ms > here.last_ms, new[name]), else_=here[name])
    upsert = statement.on_conflict_do_update(index_elements=["hour_ms", "replica"], set_=wider)
    connection.execute(upsert, [hours[key] for key in sorted(hours)])


def _hours(time: ReplicaTime) -> Iterator[tuple[int, int, int]]:
    """The hours that a stretch touches: their beginning, and the stretch's part of them."""
    begin_ms = max(time.from_ms, time.until_ms - _MOST_HOURS * HOUR_MS)
    while begin_ms < time.until_ms:
        hour_ms = begin_ms // HOUR_MS * HOUR_MS
        end_ms = min(time.until_ms, hour_ms + HOUR_MS)
        yield hour_ms, begin_ms, end_ms
        begin_ms = end_ms


def _advance(connection: Connection, arrived: Sequence[Arrived], now_ms: int) -> dict[str, int]:
    names = sorted({each.outbox for each in arrived})
    table = ledger_outboxes.c
    found = select(table.name, table.committed).where(table.name.in_(names))
    marks = dict.fromkeys(names, 0) | {row.name: row.committed for row in connection.execute(found)}
    for each in sorted(arrived, key=lambda each: each.first):
        marks[each.outbox] = max(marks[each.outbox], each.base)
        # What is missing before it, the outbox still has, and sends again.
        if each.first <= marks[each.outbox]:
            marks[each.outbox] = max(marks[each.outbox], each.end)
    statement = _upserting(connection)(ledger_outboxes)
    new = statement.excluded
    later = {
        "committed": case((new.committed > table.committed, new.committed), else_=table.committed),
        "updated_ms": new.updated_ms,
    }
    rows = [{"name": n, "committed": marks[n], "updated_ms": now_ms} for n in names]
    if rows:
        connection.execute(
            statement.on_conflict_do_update(index_elements=["name"], set_=later), rows
        )
    return marks


def _upserting(connection: Connection) -> Callable[[Table], Any]:
    return postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
