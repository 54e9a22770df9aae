"""Prices: exact, by what was used, and by where a replica runs."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weir.cost import (
    Price,
    Used,
    exact,
    hour_of_day,
    hour_price,
    nano_usd,
    replica_usd_by_hour,
    usd_of,
)
from weir.settings.money import PriceSettings, PricesSettings
from weir.settings.pools import PoolSettings
from weir.settings.tree import ModelSettings

PRICE = Price.of(
    PriceSettings(
        input_usd_per_million_tokens=0.15,
        cached_input_usd_per_million_tokens=0.075,
        output_usd_per_million_tokens=0.6,
        embedding_usd_per_million_tokens=0.02,
        image_usd=0.001,
        class_factors={"batch": 0.5, "interactive": 1.5},
        batch_discount=0.4,
    )
)
counts = st.integers(0, 10_000_000)


@pytest.mark.parametrize(
    ("used", "usd"),
    [
        (Used(), "0"),
        (Used(prompt_tokens=1_000_000), "0.15"),
        (Used(prompt_tokens=1_000_000, cached_tokens=1_000_000), "0.075"),
        (Used(output_tokens=1), "0.0000006"),
        (Used(images=3), "0.003"),
        (Used(prompt_tokens=1_000_000, embedding=True), "0.02"),
        # What is embedded for less than a cached token costs no more for having been cached.
        (Used(prompt_tokens=1_000_000, cached_tokens=500_000, embedding=True), "0.02"),
    ],
)
def test_each_part_has_its_price(used: Used, usd: str) -> None:
    assert PRICE.usd(used) == Decimal(usd)


def test_classes_and_batch_jobs_pay_in_proportion() -> None:
    used = Used(1_000_000, 0, 1_000_000)
    whole = PRICE.usd(used)
    assert PRICE.usd(used, "standard") == whole
    assert PRICE.usd(used, "interactive") == whole * Decimal("1.5")
    assert PRICE.usd(used, "batch") == whole / 2
    assert PRICE.usd(used, "batch", batch=True) == whole * Decimal("0.3")


def test_without_prices_of_their_own_cached_and_embedded_tokens_cost_what_input_costs() -> None:
    price = Price.of(PriceSettings(input_usd_per_million_tokens=2.0))
    assert price.usd(Used(1_000_000, 400_000)) == 2
    assert price.usd(Used(1_000_000, 400_000, embedding=True)) == 2
    assert Price.of(PriceSettings()).nano_usd(Used(10**9, 0, 10**9, 100)) == 0


@given(counts, counts, counts, st.integers(0, 100))
def test_the_price_is_the_sum_of_its_parts_to_the_nano_usd(
    uncached: int, cached: int, output: int, images: int
) -> None:
    used = Used(uncached + cached, cached, output, images)
    right = (
        Fraction(15, 100) * uncached + Fraction(75, 1000) * cached + Fraction(6, 10) * output
    ) / 10**6 + Fraction(images, 1000)
    assert Fraction(PRICE.usd(used)) == right
    assert PRICE.nano_usd(used) == round(right * 10**9)  # round() is half to even, too


@given(counts, counts, counts, st.sampled_from(["", "batch", "interactive"]), st.booleans())
def test_nothing_costs_more_than_the_most(
    prompt: int, cached: int, output: int, priority_class: str, batch: bool
) -> None:
    for price in (PRICE, Price.of(PriceSettings(cached_input_usd_per_million_tokens=9.0))):
        most = price.most_nano_usd(Used(prompt, 0, output), priority_class, batch)
        used = Used(prompt, min(cached, prompt), output)
        assert price.nano_usd(used, priority_class, batch) <= most


def test_a_number_of_the_settings_is_the_decimal_that_was_written() -> None:
    assert exact(0.1) + exact(0.2) == exact(0.3)
    assert usd_of(nano_usd(Decimal("12.345678901"))) == Decimal("12.345678901")
    assert [nano_usd(Decimal(n) / 10**10) for n in (5, 15, 25)] == [0, 2, 2]


TABLE = PricesSettings.model_validate(
    {
        "region": "eu",
        "hours": [
            {"usd_per_hour": 0.1},
            {"accelerator": "H100", "usd_per_hour": 4},
            {"accelerator": "H100", "market": "spot", "usd_per_hour": 1.5},
            {"accelerator": "H100", "region": "us", "usd_per_hour": 3},
            {"region": "us", "market": "spot", "usd_per_hour": 0.01},
        ],
    }
)


@pytest.mark.parametrize(
    ("accelerator", "region", "market", "usd"),
    [
        (None, "eu", "on_demand", 0.1),
        ("H100", "eu", "on_demand", 4),
        ("H100", "eu", "spot", 1.5),
        ("H100", "us", "on_demand", 3),
        ("H100", "us", "spot", 3),  # accelerator and region before accelerator and market
        ("A100", "us", "spot", 0.01),
        ("A100", None, "spot", 0.1),
    ],
)
def test_the_entry_that_names_most_counts(
    accelerator: str | None, region: str | None, market: Any, usd: float
) -> None:
    found = hour_price(TABLE, accelerator, region, market)
    assert found is not None
    assert found.usd_per_hour == usd


def test_a_replica_costs_what_its_pool_or_model_says_or_else_the_table() -> None:
    spot = PoolSettings(name="spot", market="spot", accelerator="H100")
    there = PoolSettings(name="us", region="us", accelerator="H100")
    named = PoolSettings.model_validate({"name": "own", "price": {"replica_usd_per_hour": 7}})
    model = ModelSettings.model_validate(
        {"name": "m", "source": "x", "engine": {"mode": "stub"}, "parallel": {"tensor": 2}}
    )

    def usd(prices: PricesSettings, model: ModelSettings, pool: PoolSettings | None = None) -> Any:
        (all_day,) = set(replica_usd_by_hour(prices, model, pool))
        return all_day

    assert usd(TABLE, model) == exact(0.1)
    assert usd(TABLE, model, spot) == 3  # two accelerators
    assert usd(TABLE, model, there) == 6
    assert usd(TABLE, model, named) == 7
    free = model.model_copy(update={"price": PriceSettings(replica_usd_per_hour=0)})
    assert usd(TABLE, free, spot) == 0
    assert usd(PricesSettings(), model) == 0


def test_hours_of_the_day_have_prices_of_their_own() -> None:
    night = {"from_hour": 22, "until_hour": 6, "usd_per_hour": 1.1}
    noon = {"from_hour": 12, "until_hour": 13, "usd_per_hour": 9}
    entry = {"accelerator": "H100", "usd_per_hour": 4, "at": [night, noon]}
    prices = PricesSettings.model_validate({"hours": [entry]})
    model = ModelSettings.model_validate(
        {
            "name": "m",
            "source": "x",
            "engine": {"mode": "stub"},
            "accelerator": "H100",
            "parallel": {"tensor": 2},
        }
    )
    found = replica_usd_by_hour(prices, model)
    assert len(found) == 24
    assert {hour for hour, usd in enumerate(found) if usd == exact(2.2)} == {22, 23, *range(6)}
    assert found[12] == 18
    assert found[6] == found[13] == 8
    assert found[hour_of_day(1_795_830_727.6)] == exact(2.2)  # at eight minutes to two


@pytest.mark.parametrize(
    "at",
    [
        [{"from_hour": 20, "until_hour": 2}, {"from_hour": 1, "until_hour": 3}],
        [{"from_hour": 0, "until_hour": 0}, {"from_hour": 5, "until_hour": 6}],
    ],
)
def test_an_hour_has_one_price(at: list[dict[str, int]]) -> None:
    told = {"usd_per_hour": 4, "at": [{**each, "usd_per_hour": 1} for each in at]}
    with pytest.raises(ValueError, match="has two prices"):
        PricesSettings.model_validate({"hours": [told]})


def test_one_kind_of_replica_has_one_price() -> None:
    with pytest.raises(ValueError, match="H100/any/any has two prices"):
        PricesSettings.model_validate({"hours": [{"accelerator": "H100", "usd_per_hour": 1}] * 2})
