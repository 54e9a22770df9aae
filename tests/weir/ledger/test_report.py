"""Reports from the database: rows and idle cost are what is paid, however they are grouped."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine

from tests.weir.ledger.records import DAY_MS, HOUR_MS, NOON_MS, fresh_database, usage_record
from weir.cost import nano_usd
from weir.errors import BadRequestError
from weir.ledger import Entry, Loss, Part, ReplicaTime
from weir.ledger.picture import draw
from weir.ledger.rates import Rate, rates_of
from weir.ledger.report import CostReport, cost_report
from weir.ledger.store import Arrived, store
from weir.ledger.usage import By, Period, parse_moment, usage
from weir.settings import ModelSettings, PriceSettings, Settings
from weir.settings.pools import PoolPriceSettings, PoolSettings

RATES = {
    ("m", ""): Rate(3_000_000_000, 3_000_000_000),
    ("s", ""): Rate(100_000_001, 100_000_001),
    ("m", "spot"): Rate(1_000_000_000, 3_000_000_000, "spot"),
}


#: Of the things that a report may be by, some that cut differently.
BY: tuple[By, ...] = ("tenant", "model", "day", "spill")


def _put(engine: Engine, *entries: Entry) -> None:
    store(engine, [Arrived("o", 0, len(entries), entries)], RATES, 1)


def _up(hours: float, replica: str = "a", model: str = "m", pool: str = "") -> ReplicaTime:
    until_ms = NOON_MS + int(hours * HOUR_MS)
    return ReplicaTime(replica=replica, model=model, pool=pool, from_ms=NOON_MS, until_ms=until_ms)


def _is_exact(report: CostReport) -> bool:
    borne = sum((row.cost_usd for row in report.rows), Decimal(0))
    idle = sum((pool.idle_usd for pool in report.pools), Decimal(0))
    paid = sum((pool.paid_usd for pool in report.pools), Decimal(0))
    return (borne + idle, idle, paid) == (report.paid_usd, report.idle_usd, report.paid_usd)


@settings(max_examples=12)
@given(
    legs=st.lists(
        st.tuples(
            st.sampled_from(["acme", "zeta", "omega"]),
            st.sampled_from(["m", "s"]),
            st.integers(0, 5 * HOUR_MS),
            st.one_of(st.none(), st.integers(0, 10**9)),
            st.one_of(st.none(), st.integers(0, 10**9)),
        ),
        max_size=30,
    ),
    hours=st.lists(st.floats(0.001, 5.0), max_size=4),
)
def test_rows_and_idle_are_what_is_paid(
    legs: list[tuple[str, str, int, int | None, int | None]], hours: list[float]
) -> None:
    engine = fresh_database()
    records = [
        usage_record(n, tenant=t, model=m, asked="m", ended_ms=NOON_MS + at, prefill_us=p,
                     decode_us=d)
        for n, (t, m, at, p, d) in enumerate(legs)
    ]  # fmt: skip
    up = [_up(each, f"r{n}", "ms"[n % 2]) for n, each in enumerate(hours)]
    _put(engine, *records, *up)
    paid = set()
    for by in BY:
        report = cost_report(engine, by)
        assert _is_exact(report), by
        assert min([Decimal(0), *(row.cost_usd for row in report.rows)]) == 0
        assert min([Decimal(0), *(pool.idle_usd for pool in report.pools)]) == 0
        assert sum(row.requests for row in report.rows) == len(legs)
        paid.add((report.paid_usd, report.billed_usd, report.idle_usd))
    assert len(paid) == 1
    engine.dispose()


def test_who_works_a_tenth_of_the_time_bears_a_tenth(database: Engine) -> None:
    tenth_us = HOUR_MS * 100
    _put(
        database,
        _up(1.0),
        usage_record(1, tenant="one", prefill_us=tenth_us // 4, decode_us=tenth_us * 3 // 4),
        usage_record(2, tenant="two", prefill_us=0, decode_us=2 * tenth_us),
    )
    report = cost_report(database, "tenant")
    found = [(row.group, row.cost_usd, row.replica_hours) for row in report.rows]
    assert found == [
        ("one", Decimal("0.3"), Decimal("0.1")),
        ("two", Decimal("0.6"), Decimal("0.2")),
    ]
    assert (report.paid_usd, report.idle_usd) == (Decimal(3), Decimal("2.1"))
    alone = cost_report(database, "model", tenant="one")
    assert [(row.group, row.cost_usd) for row in alone.rows] == [("m", Decimal("0.3"))]
    assert alone.paid_usd == Decimal(3)


def test_untold_work_takes_what_the_others_took(database: Engine) -> None:
    """Each leg computes 60 prompt tokens (100, of which 40 were cached) and puts out 10."""
    told = usage_record(1, tenant="told", prefill_us=60_000_000, decode_us=40_000_000)
    untold = usage_record(2, tenant="untold", prefill_us=None, decode_us=None)
    _put(database, _up(1.0), told, untold)
    report = cost_report(database, "tenant")
    assert [row.cost_usd for row in report.rows] == [report.rows[0].cost_usd] * 2
    assert report.rows[0].replica_hours == Decimal("0.02778")


def test_what_was_saved(database: Engine) -> None:
    spilled = usage_record(1, model="s", asked="m", spill="overload", nano_usd=1000,
                           asked_nano_usd=9000)  # fmt: skip
    cached = usage_record(2, cached_tokens=40, prefill_us=60 * 6_000_000, decode_us=0)
    _put(database, _up(1.0), _up(2.0, "z", "m", "spot"), spilled, cached)
    report = cost_report(database, "tenant")
    assert report.saved.student_usd == Decimal("0.000008")
    assert report.saved.spot_usd == Decimal(4)
    # Forty tokens at 6 s each, of an hour that costs 3 USD.
    assert report.saved.cache_usd == Decimal("0.2")
    assert _is_exact(report)


def test_idle_is_shown_by_pool(database: Engine) -> None:
    _put(database, _up(1.0), _up(1.0, "b", "m", "spot"), usage_record(1, pool="spot"))
    report = cost_report(database, "tenant")
    assert [(pool.model, pool.pool, pool.paid_usd) for pool in report.pools] == [
        ("m", "", Decimal(3)),
        ("m", "spot", Decimal(1)),
    ]
    assert report.pools[0].idle_usd == Decimal(3)
    assert report.pools[1].idle_usd < Decimal(1)


def test_usage_is_what_was_billed_and_what_engines_counted(database: Engine) -> None:
    lost = usage_record(
        2,
        tenant="two",
        loss=Loss.MOVED,
        billed=False,
        nano_usd=0,
        billed_prompt_tokens=0,
        billed_cached_tokens=0,
        billed_output_tokens=0,
        requests=0,
    )
    late = usage_record(3, leg="s1.0.0.0l", tenant="two", part=Part.LATE, nano_usd=0, requests=0,
                        billed_prompt_tokens=0, billed_cached_tokens=0,
                        billed_output_tokens=0)  # fmt: skip
    _put(database, usage_record(1, tenant="two", label="x"), lost, late)
    (row,) = usage(database, ("tenant",))
    assert (row.requests, row.prompt_tokens, row.output_tokens) == (1, 100, 10)
    assert (row.engine_prompt_tokens, row.engine_output_tokens) == (300, 30)
    assert row.usd == Decimal("0.000001")
    assert [r.group for r in usage(database, ("label", "tenant"))] == [("", "two"), ("x", "two")]
    assert usage(database, ("tenant",), tenant="one") == []


def test_periods_and_days(database: Engine) -> None:
    _put(database, *(usage_record(n, ended_ms=NOON_MS + n * DAY_MS) for n in range(3)))
    days = usage(database, ("day",), Period(NOON_MS, NOON_MS + 2 * DAY_MS))
    assert [row.group for row in days] == [("2024-10-04",), ("2024-10-05",)]
    hours = usage(database, ("hour", "model"))
    assert hours[0].group == ("2024-10-04T12:00Z", "m")
    assert parse_moment("2024-10-04") == NOON_MS - 12 * HOUR_MS
    assert parse_moment("2024-10-04T12:00") == NOON_MS
    assert parse_moment("2024-10-04T14:00+02:00") == NOON_MS
    assert parse_moment("2d") < parse_moment("1h")


@pytest.mark.parametrize("text", ["yesterday", "", "d", "2024-13-01", "9" * 30 + "d"])
def test_what_is_no_moment(text: str) -> None:
    with pytest.raises(BadRequestError):
        parse_moment(text)


def test_what_nothing_is_summed_by(database: Engine) -> None:
    for by in ((), ("colour",)):
        with pytest.raises(BadRequestError):
            usage(database, by)  # type: ignore[arg-type]
    with pytest.raises(BadRequestError):
        cost_report(database, "colour")  # type: ignore[arg-type]


def test_a_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    engine = fresh_database()
    _put(engine, _up(1.0), *(usage_record(n, tenant=f"t{n}") for n in range(30)))
    draw(cost_report(engine, "tenant"), tmp_path / "cost.png")
    assert (tmp_path / "cost.png").read_bytes().startswith(b"\x89PNG")
    engine.dispose()


def test_rates_are_those_of_the_settings() -> None:
    spot = PoolSettings(name="spot", market="spot", price=PoolPriceSettings())
    told = Settings(
        models=(
            ModelSettings(name="m", source="x", pools=(PoolSettings(name="usual"), spot)),
            ModelSettings(name="s", source="x", price=PriceSettings(replica_usd_per_hour=0.05)),
        ),
        prices={  # type: ignore[arg-type]
            "hours": [
                {"usd_per_hour": 2.5, "market": "on_demand"},
                {"usd_per_hour": 0.75, "market": "spot"},
            ]
        },
    )
    rates = rates_of(told)
    dear, cheap = nano_usd(Decimal("2.5")), nano_usd(Decimal("0.75"))
    assert rates["m", "usual"] == Rate(dear, dear)
    assert rates["m", "spot"] == Rate(cheap, dear, "spot")
    assert rates["s", ""] == Rate(50_000_000, 50_000_000)


def test_rates_change_with_the_hour_of_the_day() -> None:
    spot = PoolSettings(name="spot", market="spot")
    told = Settings(
        models=(ModelSettings(name="m", source="x", pools=(spot,)),),
        prices={  # type: ignore[arg-type]
            "hours": [
                {"usd_per_hour": 2.5},
                {
                    "usd_per_hour": 0.75,
                    "market": "spot",
                    "at": [{"from_hour": 8, "until_hour": 18, "usd_per_hour": 3.0}],
                },
            ]
        },
    )
    rate = rates_of(told)["m", "spot"]
    night, day = rate.at(4 * 3600), rate.at(86_400 * 3 + 9 * 3600)
    assert night.nano_usd_per_hour == nano_usd(Decimal("0.75"))
    assert night.on_demand_nano_usd_per_hour == nano_usd(Decimal("2.5"))
    # Spot is not said to save less than nothing.
    assert day.nano_usd_per_hour == day.on_demand_nano_usd_per_hour == nano_usd(Decimal(3))
    assert night.market == day.market == "spot"
