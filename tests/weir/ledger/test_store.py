"""Records come into the database once, however often and in whatever order they arrive."""

from __future__ import annotations

import threading
from decimal import Decimal
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, func, select

from tests.weir.ledger.records import DAY_MS, HOUR_MS, NOON_MS, fresh_database, usage_record
from weir.database import reading
from weir.ledger import Entry, Loss, Part, ReplicaTime
from weir.ledger.rates import Rate
from weir.ledger.store import Arrived, prune, store
from weir.ledger.tables import replica_hours, usage_records, usage_sums
from weir.ledger.usage import Period, usage


def _arrived(first: int, *entries: Entry, outbox: str = "o", base: int = 0) -> Arrived:
    return Arrived(outbox, first, first + len(entries), entries, base)


def _up(from_ms: int, until_ms: int, replica: str = "a") -> ReplicaTime:
    return ReplicaTime(replica=replica, model="m", pool="", from_ms=from_ms, until_ms=until_ms)


def _rows(engine: Engine, table: Any) -> list[Any]:
    with reading(engine) as connection:
        return list(connection.execute(select(table).order_by(*table.primary_key)))


def test_a_record_is_stored_whole(database: Engine) -> None:
    record = usage_record(
        1,
        key="k1",
        pool="fast",
        label="a b",
        part=Part.PREFILL,
        loss=Loss.HANDED_OVER,
        prefill_us=None,
        decode_us=None,
    )
    assert store(database, [_arrived(0, record)], {}, 1) == {"o": 1}
    (row,) = _rows(database, usage_records)
    assert row.leg == "s1.0.0.0"
    assert (row.key, row.pool, row.label) == ("k1", "fast", "a b")
    assert (row.part, row.loss, row.billed) == ("prefill", "handed_over", True)
    assert (row.prefill_us, row.decode_us) == (None, None)


def test_what_comes_twice_counts_once(database: Engine) -> None:
    records = [usage_record(number, tenant=f"t{number % 3}") for number in range(50)]
    first, again = _arrived(0, *records), _arrived(0, *records, outbox="another")
    store(database, [first, first], {}, 1)
    before = (_rows(database, usage_records), _rows(database, usage_sums))
    store(database, [first, again], {}, 2)
    assert (_rows(database, usage_records), _rows(database, usage_sums)) == before
    found = usage(database, ("tenant",))
    assert [row.requests for row in found] == [17, 17, 16]
    assert [row.usd for row in found] == [Decimal(n * 1000).scaleb(-9) for n in (17, 17, 16)]


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    pieces=st.lists(
        st.tuples(st.integers(0, 29), st.integers(1, 12), st.sampled_from("ab")), max_size=12
    )
)
def test_sums_are_those_of_the_records(pieces: list[tuple[int, int, str]]) -> None:
    """In any order, overlapping, from two outboxes, with gaps."""
    engine = fresh_database()
    records = [
        usage_record(
            number,
            tenant=f"t{number % 2}",
            ended_ms=NOON_MS + number * HOUR_MS // 7,
            prefill_us=None if number % 5 == 0 else 100,
        )
        for number in range(42)
    ]
    seen: dict[str, set[int]] = {"a": set(), "b": set()}
    for first, count, outbox in pieces:
        marks = store(engine, [_arrived(first, *records[first : first + count], outbox=outbox)],
                      {}, 1)  # fmt: skip
        seen[outbox] |= set(range(first, first + count))
        contiguous = next(n for n in range(60) if n not in seen[outbox])
        assert marks[outbox] <= contiguous
    with reading(engine) as connection:
        for name in ("prompt_tokens", "cached_tokens", "output_tokens", "nano_usd", "requests"):
            of_records, of_sums = (
                connection.scalar(select(func.coalesce(func.sum(table.c[name]), 0)))
                for table in (usage_records, usage_sums)
            )
            assert of_records == of_sums
        untold = connection.scalar(select(func.sum(usage_sums.c.untold_prompt_tokens))) or 0
        legs = set(connection.scalars(select(usage_records.c.leg)))
    there = seen["a"] | seen["b"]
    assert legs == {records[number].leg for number in there}
    assert untold == 60 * sum(number % 5 == 0 for number in there)
    engine.dispose()


def test_what_is_missing_is_asked_for_again(database: Engine) -> None:
    records = [usage_record(number) for number in range(30)]
    assert store(database, [_arrived(0, *records[:10])], {}, 1) == {"o": 10}
    assert store(database, [_arrived(20, *records[20:])], {}, 1) == {"o": 10}
    assert store(database, [_arrived(10, *records[10:25])], {}, 1) == {"o": 25}
    assert store(database, [_arrived(25, *records[25:])], {}, 1) == {"o": 30}
    assert len(_rows(database, usage_records)) == 30


def test_a_database_that_does_not_know_an_outbox_believes_it(database: Engine) -> None:
    late = _arrived(500, usage_record(1), outbox="old", base=500)
    assert store(database, [late], {}, 1) == {"old": 501}


def test_two_writers_at_once_count_each_record_once(database: Engine) -> None:
    records = [usage_record(number) for number in range(200)]
    errors: list[Exception] = []

    def write(name: str) -> None:
        try:
            for first in range(0, 200, 20):
                some = records[first : first + 20]
                store(database, [_arrived(first, *some, outbox=name)], {}, 1)
        except Exception as error:  # noqa: BLE001 - told by the test
            errors.append(error)

    threads = [threading.Thread(target=write, args=(name,)) for name in ("a", "b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    (row,) = usage(database)
    assert row.requests == 200
    assert row.engine_prompt_tokens == 20_000


def test_replica_time_is_the_longest_stretch_of_each_hour(database: Engine) -> None:
    rates = {("m", ""): Rate(3_600_000, 3_600_000)}
    half = HOUR_MS // 2
    told = [_up(NOON_MS + half, NOON_MS + HOUR_MS + half), _up(NOON_MS + 1000, NOON_MS + half)]
    store(database, [_arrived(0, *told), _arrived(0, *told, outbox="b")], rates, 1)
    store(database, [_arrived(2, _up(NOON_MS + 2000, NOON_MS + 3000))], rates, 1)
    found = [(row.hour_ms, row.first_ms, row.last_ms) for row in _rows(database, replica_hours)]
    next_hour = NOON_MS + HOUR_MS
    assert found == [
        (NOON_MS, NOON_MS + 1000, next_hour),
        (next_hour, next_hour, next_hour + half),
    ]


def test_a_new_price_changes_no_hour_that_is_over(database: Engine) -> None:
    life = _up(NOON_MS, NOON_MS + 2 * HOUR_MS)
    store(database, [_arrived(0, life)], {("m", ""): Rate(5, 5)}, 1)
    longer = _up(NOON_MS, NOON_MS + 3 * HOUR_MS)
    store(database, [_arrived(1, longer)], {("m", ""): Rate(7, 9, "spot")}, 1)
    found = [(row.nano_usd_per_hour, row.market) for row in _rows(database, replica_hours)]
    assert found == [(5, "on_demand"), (5, "on_demand"), (7, "spot")]


def test_each_hour_has_the_price_of_its_hour_of_the_day(database: Engine) -> None:
    by_hour = [(1, 2) if hour == 12 else (5, 6) for hour in range(24)]
    rates = {("m", ""): Rate.of_day(by_hour, "spot")}
    told = _up(NOON_MS - HOUR_MS, NOON_MS + 2 * HOUR_MS)
    store(database, [_arrived(0, told)], rates, 1)
    rows = _rows(database, replica_hours)
    found = [(row.nano_usd_per_hour, row.on_demand_nano_usd_per_hour) for row in rows]
    assert found == [(5, 6), (1, 2), (5, 6)]


def test_old_records_go_and_their_sums_stay(database: Engine) -> None:
    records = [usage_record(number, ended_ms=NOON_MS + number * DAY_MS) for number in range(4)]
    store(database, [_arrived(0, *records)], {}, NOON_MS)
    prune(database, NOON_MS + 2 * DAY_MS)
    assert len(_rows(database, usage_records)) == 2
    assert len(usage(database, ("day",))) == 4
    assert len(usage(database, ("day",), Period(NOON_MS - DAY_MS, NOON_MS + DAY_MS))) == 1


def test_what_a_database_would_refuse_is_cut(database: Engine) -> None:
    store(database, [_arrived(0, usage_record(1, label="x" * 500, endpoint="a\0b"))], {}, 1)
    (row,) = _rows(database, usage_records)
    assert row.label == "x" * 64
    assert row.endpoint == "ab"
