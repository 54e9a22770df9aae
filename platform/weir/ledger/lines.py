"""A batch's line is paid for once, however often it was computed.

Between computing a line and publishing its result lies a moment in which a gateway may be killed.
Another one then computes the line again, and both have booked it. Both records are in the ledger,
because engines have counted both; the tenant pays for the one that came first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
from sqlalchemy import Connection, select
from sqlalchemy.dialects import postgresql, sqlite

from weir.ledger.record import Loss, UsageRecord
from weir.ledger.tables import billed_lines

_AT_ONCE = 500
_UNPAID: Mapping[str, Any] = {
    "billed_prompt_tokens": 0,
    "billed_cached_tokens": 0,
    "billed_output_tokens": 0,
    "images": 0,
    "nano_usd": 0,
    "asked_nano_usd": 0,
    "billed": False,
    "loss": Loss.REPEATED,
    "requests": 0,
}


def paid_once(connection: Connection, records: Mapping[str, UsageRecord]) -> dict[str, UsageRecord]:
    """The new records, by their legs: those of lines that another computation pays for are not
    billed."""
    own = {r.request: r for r in reversed(list(records.values())) if r.batch and r.billed}
    if not own:
        return dict(records)
    payers = _payers(connection, own)
    return {
        leg: msgspec.structs.replace(record, **_UNPAID)
        if record.billed and record.batch and payers[record.request] != _serial(record)
        else record
        for leg, record in records.items()
    }


def _payers(connection: Connection, own: Mapping[str, UsageRecord]) -> dict[str, str]:
    """Who pays for each line. Two writers that try at once wait for each other here."""
    module = postgresql if connection.dialect.name == "postgresql" else sqlite
    rows = [
        {"line": line, "serial": _serial(own[line]), "ended_ms": own[line].ended_ms}
        for line in sorted(own)
    ]
    connection.execute(module.insert(billed_lines).on_conflict_do_nothing(), rows)
    return dict(_read(connection, sorted(own)))


def _read(connection: Connection, lines: list[str]) -> Iterator[tuple[str, str]]:
    for begin in range(0, len(lines), _AT_ONCE):
        some = billed_lines.c.line.in_(lines[begin : begin + _AT_ONCE])
        for row in connection.execute(select(billed_lines).where(some)):
            yield row.line, row.serial


def _serial(record: UsageRecord) -> str:
    return record.leg.partition(".")[0]
