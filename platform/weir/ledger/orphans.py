"""What replicas tell themselves, because the gateway that asked them did not say that it is booked.

Such a record, an *orphan*, has everything that the engine has counted for a leg. The gateway may
have booked all of it, a part, or nothing, and its own records may come before or after. So that
their sum is what the engine has counted, in whatever order they come, an orphan is worth what the
leg's other records leave of it: those that are there when it comes are taken off it, and those that
come later are taken off then. All in the transaction that puts records in.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, select, text, update

from weir.ledger.record import LATER, ORPHANED, Part, UsageRecord
from weir.ledger.tables import usage_records

_COUNTS = ("prompt_tokens", "cached_tokens", "output_tokens")
_AT_ONCE = 500
Row = dict[str, Any]


def hold_others_back(connection: Connection, records: Iterable[UsageRecord]) -> None:
    """Where there are orphans among the records, no other writer may put in parts of their legs at
    the same time: neither would see what the other one does. Called before anything is written."""
    if connection.dialect.name == "postgresql" and any(map(_is_orphan, records)):
        table = usage_records.name
        connection.execute(text(f"LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE"))


def without_booked(
    connection: Connection, records: Mapping[str, UsageRecord]
) -> dict[str, UsageRecord]:
    """The new records, by their legs: of orphans what is not booked already, there or here. Those
    of which nothing is left are left out."""
    orphans = {leg: record for leg, record in records.items() if _is_orphan(record)}
    if not orphans:
        return dict(records)
    wanted = [part for leg in orphans for part in _parts(leg)]
    there = {row["leg"]: row for row in _rows(connection, wanted)}
    left = {leg: record for leg, record in records.items() if leg not in orphans}
    for leg, record in orphans.items():
        parts = [there[part] for part in _parts(leg) if part in there]
        parts += [_counts(records[part]) for part in _parts(leg) if part in records]
        rest = _less(_counts(record), parts)
        if any(rest[name] for name in _COUNTS):
            left[leg] = _replaced(record, rest) if parts else record
    return left


def take_off(connection: Connection, records: Mapping[str, UsageRecord]) -> list[tuple[Row, Row]]:
    """Orphans that are there already, and parts of whose legs have been put in now, lose these
    parts. Each as it was, and as it is. Called when the records are in."""
    parts: dict[str, list[Row]] = {}
    for leg, record in records.items():
        if not _is_orphan(record):
            parts.setdefault(leg.removesuffix(LATER) + ORPHANED, []).append(_counts(record))
    changed = []
    for row in _rows(connection, [leg for leg in parts if leg not in records]):
        rest = row | _less(row, parts[row["leg"]]) | {"prefill_us": None, "decode_us": None}
        names = (*_COUNTS, "prefill_us", "decode_us")
        connection.execute(
            update(usage_records)
            .where(usage_records.c.leg == row["leg"])
            .values({name: rest[name] for name in names})
        )
        changed.append((row, rest))
    return changed


def _is_orphan(record: UsageRecord) -> bool:
    return record.part is Part.ORPHAN


def _parts(orphan: str) -> tuple[str, str]:
    """The legs of the records that an orphan is told beside."""
    leg = orphan.removesuffix(ORPHANED)
    return leg, leg + LATER


def _rows(connection: Connection, legs: Sequence[str]) -> list[Row]:
    found: list[Row] = []
    for begin in range(0, len(legs), _AT_ONCE):
        some = usage_records.c.leg.in_(legs[begin : begin + _AT_ONCE])
        found += [
            dict(row) for row in connection.execute(select(usage_records).where(some)).mappings()
        ]
    return found


def _counts(record: UsageRecord) -> Row:
    return {name: getattr(record, name) for name in _COUNTS}


def _less(whole: Row, parts: Sequence[Row]) -> Row:
    return {name: max(0, whole[name] - sum(part[name] for part in parts)) for name in _COUNTS}


def _replaced(record: UsageRecord, rest: Row) -> UsageRecord:
    """How long the rest took, nobody has told."""
    return msgspec.structs.replace(record, **rest, prefill_us=None, decode_us=None)
