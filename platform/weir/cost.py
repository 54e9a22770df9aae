"""Money: what a request costs its tenant, and what a replica costs whoever runs the platform.

Pure and exact: amounts are decimals of USD, never floats. Where they are kept and counted they are
whole nano-USD (10^-9 USD), rounded once for each attempt at a request, half to even.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from decimal import ROUND_HALF_EVEN, Decimal
from types import MappingProxyType
from typing import Final, Literal

from weir.settings.money import HOURS, HourPriceSettings, PriceSettings, PricesSettings
from weir.settings.pools import PoolSettings
from weir.settings.tree import ModelSettings

NANO_PER_USD: Final = 1_000_000_000
_NANO: Final = Decimal(NANO_PER_USD)
_MILLION: Final = Decimal(1_000_000)
_ONE: Final = Decimal(1)


@dataclass(frozen=True, slots=True)
class Used:
    """What is paid for. ``cached_tokens`` are those of ``prompt_tokens`` that an engine found in
    its cache. ``embedding``: the prompt was embedded, scored or ranked; nothing was generated."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    images: int = 0
    embedding: bool = False


@dataclass(frozen=True, slots=True)
class Price:
    """A model's or an adapter's price list; see :class:`weir.settings.money.PriceSettings`."""

    input_usd_per_million_tokens: Decimal = Decimal(0)
    cached_input_usd_per_million_tokens: Decimal = Decimal(0)
    output_usd_per_million_tokens: Decimal = Decimal(0)
    embedding_usd_per_million_tokens: Decimal = Decimal(0)
    image_usd: Decimal = Decimal(0)
    class_factors: Mapping[str, Decimal] = field(default_factory=lambda: MappingProxyType({}))
    batch_discount: Decimal = Decimal(0)

    @classmethod
    def of(cls, settings: PriceSettings) -> Price:
        """The price list that the settings say."""
        prompt = exact(settings.input_usd_per_million_tokens)
        cached = settings.cached_input_usd_per_million_tokens
        embedded = settings.embedding_usd_per_million_tokens
        factors = {name: exact(factor) for name, factor in settings.class_factors.items()}
        return cls(
            prompt,
            prompt if cached is None else exact(cached),
            exact(settings.output_usd_per_million_tokens),
            prompt if embedded is None else exact(embedded),
            exact(settings.image_usd),
            MappingProxyType(factors),
            exact(settings.batch_discount),
        )

    def usd(self, used: Used, priority_class: str = "", batch: bool = False) -> Decimal:
        """The price, exactly."""
        prompt_price = self.input_usd_per_million_tokens
        cached_price = self.cached_input_usd_per_million_tokens
        if used.embedding:
            prompt_price = self.embedding_usd_per_million_tokens
            cached_price = min(prompt_price, cached_price)
        tokens = (
            (used.prompt_tokens - used.cached_tokens) * prompt_price
            + used.cached_tokens * cached_price
            + used.output_tokens * self.output_usd_per_million_tokens
        )
        usd = tokens / _MILLION
        if used.images:
            usd += used.images * self.image_usd
        return usd * self.factor(priority_class, batch)

    def nano_usd(self, used: Used, priority_class: str = "", batch: bool = False) -> int:
        """The price in whole nano-USD."""
        return nano_usd(self.usd(used, priority_class, batch))

    def most_nano_usd(self, used: Used, priority_class: str = "", batch: bool = False) -> int:
        """The most that it can cost, whatever of the prompt is cached."""
        dearer = self.cached_input_usd_per_million_tokens > self.input_usd_per_million_tokens
        cached = used.prompt_tokens if dearer and not used.embedding else 0
        worst = used if used.cached_tokens == cached else replace(used, cached_tokens=cached)
        return self.nano_usd(worst, priority_class, batch)

    def factor(self, priority_class: str = "", batch: bool = False) -> Decimal:
        """What a class, or a batch job, pays in proportion."""
        factor = self.class_factors.get(priority_class, _ONE) if self.class_factors else _ONE
        return factor * (_ONE - self.batch_discount) if batch else factor


def exact(number: float) -> Decimal:
    """The decimal number that was written in a settings file, not the float nearest to it."""
    return Decimal(str(number))


def nano_usd(usd: Decimal) -> int:
    """Whole nano-USD, rounded half to even."""
    return int((usd * _NANO).to_integral_value(ROUND_HALF_EVEN))


def usd_of(nano: int) -> Decimal:
    """USD, exactly."""
    return Decimal(nano).scaleb(-9)


def replica_usd_by_hour(
    prices: PricesSettings, model: ModelSettings, pool: PoolSettings | None = None
) -> tuple[Decimal, ...]:
    """What an hour of one replica costs, for each hour of the day (UTC): as its pool says, or its
    model, or the table of accelerators, regions and markets; nothing where none of them does."""
    served = model if pool is None else model.of_pool(pool)
    own = served.price.replica_usd_per_hour
    if own is not None:
        return (exact(own),) * HOURS
    market = "on_demand" if pool is None else pool.market
    region = prices.region if pool is None or pool.region is None else pool.region
    found = hour_price(prices, served.accelerator, region, market)
    count = served.parallel.workers if served.accelerator is not None else 1
    if found is None:
        return (Decimal(0),) * HOURS
    return tuple(exact(usd) * count for usd in found.usd_by_hour)


def hour_of_day(at_s: float) -> int:
    """Of a time in seconds since the epoch, in UTC: the index into prices by hour."""
    return int(at_s // 3600) % HOURS


def hour_price(
    prices: PricesSettings,
    accelerator: str | None,
    region: str | None,
    market: Literal["on_demand", "spot"],
) -> HourPriceSettings | None:
    """The entry of the table that fits best; None where none fits."""

    def fits(entry: HourPriceSettings) -> bool:
        return (
            entry.accelerator in (None, accelerator)
            and entry.region in (None, region)
            and entry.market in (None, market)
        )

    def detail(entry: HourPriceSettings) -> tuple[int, list[bool]]:
        named = [part is not None for part in (entry.accelerator, entry.region, entry.market)]
        return sum(named), named

    return max(filter(fits, prices.hours), key=detail, default=None)
