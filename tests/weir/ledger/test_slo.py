"""How often answers kept their limits, by any group, in both databases."""

from __future__ import annotations

from typing import get_args

from sqlalchemy import Engine

from tests.weir.ledger.records import DAY_MS, NOON_MS, usage_record
from weir.ledger.slo import By, slo_report
from weir.ledger.store import Arrived, store


def test_every_group(database: Engine) -> None:
    records = [
        usage_record(
            number,
            priority_class="interactive",
            ended_ms=NOON_MS + number % 2 * DAY_MS,
            slo="met" if number < 3 else "missed",
            ttft_ms=100 * number,
        )
        for number in range(4)
    ]
    store(database, [Arrived("o", 0, 4, records)], {}, 1)
    for by in get_args(By):
        rows = slo_report(database, (by,))
        assert sum(row.met for row in rows) == 3, by
        assert sum(row.missed for row in rows) == 1, by
    days = slo_report(database, ("day",))
    assert [(row.group, row.attained, row.mean_ttft_ms) for row in days] == [
        (("2024-10-04",), 1.0, 100.0),
        (("2024-10-05",), 0.5, 200.0),
    ]
