"""What is kept in Redis of tenants' accounts, and how long a minute, a day and a month are.

Each tenant has four keys in one hash slot: what it has used and reserved, by scope; each open
reservation; the leases of the gateways that hold them; and the steps of its budget that were
reached and that nobody has been told of yet. Only the gateways' script writes the first three
(:mod:`deployments.gateway.accounts.script`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import orjson

MINUTE_MS: Final = 60_000
DAY_MS: Final = 86_400_000
#: The field of :attr:`AccountKeys.used` that has the month and what was spent in it.
MONEY_FIELD: Final = "$"


@dataclass(frozen=True, slots=True)
class AccountKeys:
    """The names of a tenant's keys."""

    used: str
    held: str
    leases: str
    steps: str

    @classmethod
    def of(cls, tenant: str) -> AccountKeys:
        """Of the tenant with that id."""
        return cls(*(f"weir:account:{{{tenant}}}:{part}" for part in cls.__slots__))


@dataclass(frozen=True, slots=True)
class StepReached:
    """A step of a tenant's budget that was reached for the first time in a month.

    ``month``: as ``2026-11``. ``spent_nano_usd``: spent and reserved at that moment, the request
    that reached the step included. ``at_ms``: since the epoch.
    """

    tenant: str
    month: str
    percent: int
    spent_nano_usd: int
    budget_nano_usd: int
    at_ms: int

    @property
    def id(self) -> str:
        """The same for every time that this step is told."""
        return f"{self.tenant}:{self.month}:{self.percent}"


def step_of(tenant: str, field: str, written: bytes) -> StepReached:
    """An entry of :attr:`AccountKeys.steps`.

    Raises:
        ValueError: it is none.
    """
    try:
        month, percent = (int(part) for part in field.split(":"))
        told: Mapping[str, Any] = orjson.loads(written)
        return StepReached(
            tenant,
            month_name(month),
            percent,
            int(told["spent"]),
            int(told["budget"]),
            int(told["at"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{field}: not a step of a budget: {error}") from None


@dataclass(frozen=True, slots=True)
class ScopeUse:
    """What a scope has used and reserved: requests, prompt tokens and output tokens of this minute
    and this day, and the requests that run now."""

    minutely: tuple[int, int, int] = (0, 0, 0)
    daily: tuple[int, int, int] = (0, 0, 0)
    concurrent: int = 0


@dataclass(frozen=True, slots=True)
class Standing:
    """A tenant's account as it is now, reservations included. ``scopes``: the tenant's own is
    ``t``, a key's is ``k:`` and its id, a model's ``m:`` and its name; those with quotas."""

    spent_nano_usd: int
    scopes: Mapping[str, ScopeUse]


def standing_of(written: Mapping[bytes, bytes], now_ms: int) -> Standing:
    """What all fields of :attr:`AccountKeys.used` say (``HGETALL``)."""
    spent, scopes = 0, {}
    for field, packed in written.items():
        name = field.decode()
        if name == MONEY_FIELD:
            spent = spent_nano_usd(packed, now_ms)
            continue
        minute, day, *counts, concurrent = msgspec.msgpack.decode(packed)
        now, today = minute == now_ms // MINUTE_MS, day == now_ms // DAY_MS
        minutely = (counts[0], counts[1], counts[2]) if now else (0, 0, 0)
        daily = (counts[3], counts[4], counts[5]) if today else (0, 0, 0)
        scopes[name] = ScopeUse(minutely, daily, concurrent)
    return Standing(spent, scopes)


def spent_nano_usd(written: bytes | None, now_ms: int) -> int:
    """What is spent and reserved this month, from :data:`MONEY_FIELD`."""
    if written is None:
        return 0
    month, spent, *_ = msgspec.msgpack.decode(written)
    return int(spent) if month == month_of(now_ms // DAY_MS) else 0


def month_of(day: int) -> int:
    """The month of a day, both counted: days since 1970-01-01, months since year 0. (Howard
    Hinnant's ``civil_from_days``, which the script has in Lua.)"""
    shifted = day + 719_468
    era, of_era = divmod(shifted, 146_097)
    year = (of_era - of_era // 1460 + of_era // 36_524 - of_era // 146_096) // 365
    of_year = of_era - (365 * year + year // 4 - year // 100)
    month = (5 * of_year + 2) // 153  # from March
    return (year + 400 * era) * 12 + month + 2


def month_name(month: int) -> str:
    """As ``2026-11``."""
    return f"{month // 12:04d}-{month % 12 + 1:02d}"
