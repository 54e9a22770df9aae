"""What replicas tell themselves is worth what gateways have not booked, in whatever order."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, func, select

from tests.weir.ledger.records import HOUR_MS, NOON_MS, fresh_database, usage_record
from weir.database import reading
from weir.ledger import Loss, Part, UsageRecord
from weir.ledger.store import Arrived, store
from weir.ledger.tables import usage_records, usage_sums

_COUNTS = ("prompt_tokens", "cached_tokens", "output_tokens")


@dataclass(frozen=True, slots=True)
class Case:
    """A leg of which the engine has counted ``prompt`` and ``output`` tokens, and the gateway has
    booked so much at first, and ``later`` output tokens besides."""

    prompt: int
    output: int
    booked: tuple[int, int] | None
    later: int

    def records(self, number: int) -> list[UsageRecord]:
        """Those that arrive: of the gateway, and twice of the replica."""
        told = []
        whole = usage_record(number, tenant=f"t{number % 2}", cached_tokens=0)
        if self.booked is not None:
            counts = {"prompt_tokens": self.booked[0], "output_tokens": self.booked[1]}
            told.append(msgspec.structs.replace(whole, **counts, prefill_us=None, decode_us=None))
        unbilled = {"nano_usd": 0, "asked_nano_usd": 0, "billed": False, "requests": 0}
        unbilled |= {f"billed_{name}": 0 for name in _COUNTS}
        if self.later:
            late = {"leg": f"{whole.leg}l", "part": Part.LATE, "loss": Loss.UNSEEN}
            late |= {"prompt_tokens": 0, "output_tokens": self.later}
            told.append(msgspec.structs.replace(whole, **unbilled, **late))
        orphan = {"leg": f"{whole.leg}o", "part": Part.ORPHAN, "loss": Loss.ORPHANED}
        orphan |= {"prompt_tokens": self.prompt, "output_tokens": self.output}
        orphan |= {"ended_ms": NOON_MS + 3 * HOUR_MS}
        return [*told, *[msgspec.structs.replace(whole, **unbilled, **orphan)] * 2]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    prompt, output = draw(st.integers(1, 50)), draw(st.integers(0, 50))
    if draw(st.booleans()):
        return Case(prompt, output, None, 0)
    first = draw(st.integers(0, output))
    knows = draw(st.booleans())
    later = draw(st.integers(0, output - first))
    return Case(prompt, output, (prompt if knows else 0, first), later)


def _sums(engine: Engine, table: object) -> dict[str, int]:
    with reading(engine) as connection:
        columns = [func.coalesce(func.sum(table.c[name]), 0) for name in _COUNTS]  # type: ignore[attr-defined]
        row = connection.execute(select(*columns)).one()
    return dict(zip(_COUNTS, map(int, row), strict=True))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(told=st.lists(cases(), min_size=1, max_size=4), data=st.data())
def test_the_sum_is_what_engines_have_counted(told: list[Case], data: st.DataObject) -> None:
    engine = fresh_database()
    records = [record for number, case in enumerate(told) for record in case.records(number)]
    order = data.draw(st.permutations(records))
    at = 0
    while at < len(order):
        size = data.draw(st.integers(1, 4))
        some = order[at : at + size]
        store(engine, [Arrived("o", at, at + len(some), some)], {}, 1)
        at += size
    expected = {
        "prompt_tokens": sum(case.prompt for case in told),
        "cached_tokens": 0,
        "output_tokens": sum(case.output for case in told),
    }
    assert _sums(engine, usage_records) == expected
    assert _sums(engine, usage_sums) == expected
    with reading(engine) as connection:
        untold = connection.scalar(select(func.sum(usage_sums.c.untold_output_tokens))) or 0
        own = usage_records.c
        of_records = select(func.sum(own.output_tokens)).where(own.decode_us.is_(None))
        assert untold == (connection.scalar(of_records) or 0)
    engine.dispose()


def _of(engine: Engine) -> Sequence[object]:
    with reading(engine) as connection:
        columns = usage_records.c
        rows = select(columns.leg, columns.output_tokens, columns.prefill_us).order_by(columns.leg)
        return [tuple(row) for row in connection.execute(rows)]


def test_an_orphan_alone_bears_its_work(database: Engine) -> None:
    _, orphan, _ = Case(10, 5, (10, 5), 0).records(1)
    store(database, [Arrived("o", 0, 1, [orphan])], {}, 1)
    (row,) = _of(database)
    assert row == ("s1.0.0.0o", 5, orphan.prefill_us)
    assert orphan.prefill_us


def test_what_is_booked_later_is_taken_off(database: Engine) -> None:
    whole, orphan, _ = Case(10, 5, (10, 2), 0).records(1)
    store(database, [Arrived("o", 0, 1, [orphan])], {}, 1)
    store(database, [Arrived("p", 0, 1, [whole])], {}, 1)
    assert _of(database) == [("s1.0.0.0", 2, None), ("s1.0.0.0o", 3, None)]
    store(database, [Arrived("q", 0, 1, [orphan])], {}, 1)
    assert _of(database) == [("s1.0.0.0", 2, None), ("s1.0.0.0o", 3, None)]


def test_the_prefill_replicas_half_has_its_own() -> None:
    engine = fresh_database()
    _, orphan, _ = Case(10, 5, (10, 2), 0).records(1)
    half = usage_record(1, leg="s1.0.0.0p", part=Part.PREFILL, prompt_tokens=10, output_tokens=0)
    own = msgspec.structs.replace(orphan, leg="s1.0.0.0po", output_tokens=1)
    store(engine, [Arrived("o", 0, 2, [own, half])], {}, 1)
    assert _of(engine) == [("s1.0.0.0p", 0, half.prefill_us), ("s1.0.0.0po", 1, None)]
    engine.dispose()


@pytest.mark.parametrize("number", range(3))
def test_two_writers_at_once(database: Engine, number: int) -> None:
    """One has the gateways' records, the other the replicas'; neither may miss the other's."""
    cases = [Case(10, 5, (10, 2), 0) for _ in range(20)]
    told = [case.records(100 * number + i) for i, case in enumerate(cases)]
    barrier = threading.Barrier(2)

    def write(outbox: str, place: int) -> None:
        barrier.wait()
        for at, records in enumerate(told):
            store(database, [Arrived(outbox, at, at + 1, [records[place]])], {}, 1)

    writers = [threading.Thread(target=write, args=args) for args in (("a", 0), ("b", 1))]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert _sums(database, usage_records)["output_tokens"] == 5 * len(cases)
    assert _sums(database, usage_sums) == _sums(database, usage_records)
