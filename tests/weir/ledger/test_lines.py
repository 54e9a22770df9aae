"""A batch's line is paid for once, whichever of its computations the ledger hears of first."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from sqlalchemy import Engine, func, select

from tests.weir.ledger.records import NOON_MS, usage_record
from weir.database import reading
from weir.ledger import Loss, UsageRecord
from weir.ledger.store import Arrived, prune, store
from weir.ledger.tables import billed_lines, usage_records, usage_sums


def line(serial: str, number: int = 1, leg: str = "0.0.0", **more: Any) -> UsageRecord:
    """One computation of a line."""
    request = f"batch_a-{number}"
    return usage_record(number, leg=f"{serial}.{leg}", request=request, batch=True, **more)


def _rows(engine: Engine) -> list[Any]:
    with reading(engine) as connection:
        return list(connection.execute(select(usage_records).order_by(usage_records.c.leg)))


@pytest.mark.parametrize("together", [True, False])
def test_the_second_computation_is_recorded_and_not_paid(database: Engine, together: bool) -> None:
    first, second = line("a"), line("b")
    if together:
        store(database, [Arrived("o", 0, 2, [first, second])], {}, 1)
    else:
        store(database, [Arrived("o", 0, 1, [first])], {}, 1)
        store(database, [Arrived("p", 0, 1, [second])], {}, 1)
    store(database, [Arrived("q", 0, 2, [second, first])], {}, 1)
    paid, again = _rows(database)
    assert (paid.billed, paid.nano_usd, paid.loss) == (True, first.nano_usd, "")
    assert (again.billed, again.nano_usd, again.billed_output_tokens) == (False, 0, 0)
    assert (again.loss, again.output_tokens) == (Loss.REPEATED, second.output_tokens)
    with reading(database) as connection:
        sums = usage_sums.c
        told = select(func.sum(sums.nano_usd), func.sum(sums.requests), func.sum(sums.legs))
        assert tuple(connection.execute(told).one()) == (first.nano_usd, first.requests, 2)


def test_all_legs_of_one_computation_are_paid(database: Engine) -> None:
    legs = [line("a", leg="0.0.0"), line("a", leg="0.0.1"), line("a", number=2)]
    store(database, [Arrived("o", 0, 3, legs)], {}, 1)
    assert all(row.billed for row in _rows(database))


def test_what_nobody_pays_for_is_no_first_computation(database: Engine) -> None:
    failed = line("a", billed=False, nano_usd=0)
    store(database, [Arrived("o", 0, 2, [failed, line("b")])], {}, 1)
    assert [row.billed for row in _rows(database)] == [False, True]


def test_requests_that_are_no_lines_may_have_the_same_name(database: Engine) -> None:
    same = [usage_record(n, leg=f"s{n}.0.0.0", request="r") for n in range(2)]
    store(database, [Arrived("o", 0, 2, same)], {}, 1)
    assert all(row.billed for row in _rows(database))


def test_two_writers_at_once_bill_one(database: Engine) -> None:
    barrier = threading.Barrier(2)

    def write(serial: str) -> None:
        barrier.wait()
        for number in range(20):
            told = line(f"{serial}{number}", number)
            store(database, [Arrived(serial, number, number + 1, [told])], {}, 1)

    writers = [threading.Thread(target=write, args=(serial,)) for serial in "ab"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    rows = _rows(database)
    assert len(rows) == 40
    assert sum(row.billed for row in rows) == 20


def test_who_paid_is_forgotten_with_the_records(database: Engine) -> None:
    store(database, [Arrived("o", 0, 1, [line("a", ended_ms=NOON_MS)])], {}, 1)
    prune(database, NOON_MS + 1)
    with reading(database) as connection:
        assert connection.execute(select(billed_lines)).first() is None
