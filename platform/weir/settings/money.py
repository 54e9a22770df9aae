"""Settings of money: prices, and where it is counted what tenants use."""

from __future__ import annotations

from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from weir.settings.section import Finding, Section, refuse

HOURS: Final = 24
Market = Literal["on_demand", "spot"]
Usd = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class PriceSettings(Section):
    """What a model costs: a replica per hour, and the tenant's bill.

    ``replica_usd_per_hour``: None is what the table in ``prices`` says.
    ``cached_input_usd_per_million_tokens`` and ``embedding_usd_per_million_tokens``: None is the
    price of input; the second is for prompts that are embedded, scored or ranked. ``image_usd``:
    each image of a prompt, beside its tokens. ``class_factors``: what a priority class pays in
    proportion (1 where it is not named). ``batch_discount``: the part of the price that batch jobs
    do not pay.
    """

    replica_usd_per_hour: Usd | None = None
    input_usd_per_million_tokens: Usd = 0.0
    cached_input_usd_per_million_tokens: Usd | None = None
    output_usd_per_million_tokens: Usd = 0.0
    embedding_usd_per_million_tokens: Usd | None = None
    image_usd: Usd = 0.0
    class_factors: dict[str, Usd] = Field(default_factory=dict)
    batch_discount: float = Field(0.0, ge=0, le=1)


class OtherHoursSettings(Section):
    """Hours of the day, in UTC, with a price of their own: from ``from_hour`` until before
    ``until_hour``, over midnight where that is the smaller one."""

    from_hour: int = Field(ge=0, le=23)
    until_hour: int = Field(ge=0, le=24)
    usd_per_hour: Usd

    @property
    def hours(self) -> tuple[int, ...]:
        """Each of them; all of a day where both are the same."""
        count = (self.until_hour - self.from_hour) % HOURS or HOURS
        return tuple((self.from_hour + number) % HOURS for number in range(count))


class HourPriceSettings(Section):
    """What an hour costs. A part that is None fits every replica; of the entries that fit, the one
    that names most parts counts, the accelerator before the region before the market.

    ``usd_per_hour`` is for one accelerator; for a replica without any, it is for the replica.
    ``at``: hours of the day that cost something else.
    """

    accelerator: str | None = None
    region: str | None = None
    market: Market | None = None
    usd_per_hour: Usd
    at: tuple[OtherHoursSettings, ...] = ()

    @model_validator(mode="after")
    def _each_hour_once(self) -> Self:
        seen: set[int] = set()
        findings = []
        for number, each in enumerate(self.at):
            if twice := sorted(seen & set(each.hours)):
                findings.append(Finding(("at", number), f"hour {twice[0]} has two prices"))
            seen |= set(each.hours)
        refuse(findings)
        return self

    @property
    def usd_by_hour(self) -> tuple[float, ...]:
        """For each hour of the day, in UTC."""
        others = {hour: each.usd_per_hour for each in self.at for hour in each.hours}
        return tuple(others.get(hour, self.usd_per_hour) for hour in range(HOURS))


class PricesSettings(Section):
    """Prices of replica-hours, for models and pools that name none of their own. ``region``: where
    the platform runs."""

    region: str | None = None
    hours: tuple[HourPriceSettings, ...] = ()

    @model_validator(mode="after")
    def _no_two_for_the_same(self) -> Self:
        whats = [(entry.accelerator, entry.region, entry.market) for entry in self.hours]
        refuse(
            Finding(("hours", number), f"{'/'.join(part or 'any' for part in what)} has two prices")
            for number, what in enumerate(whats)
            if what in whats[:number]
        )
        return self


class AccountsSettings(Section):
    """Where it is counted what tenants use. ``url``: None is the platform's Redis.

    ``timeout_ms``: so long a request waits for an answer. ``lease_s``: what a gateway has reserved
    returns to its tenants so long after it was last heard of. While Redis does not answer, each
    gateway lets a tenant use ``away_share`` of each bound (of requests, at least one) and nothing
    that is known to be used up; what was used is counted when Redis is back.
    """

    url: str | None = None
    timeout_ms: float = Field(200.0, gt=0, le=10_000)
    lease_s: float = Field(15.0, ge=1, le=3600)
    away_share: float = Field(0.05, ge=0, le=1)
