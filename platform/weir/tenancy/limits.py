"""How much a tenant, a key or a model of a tenant may use. None: as much as it likes."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

BudgetAction = Literal["warn", "webhook", "spill", "refuse"]


@dataclass(frozen=True, slots=True)
class Quotas:
    """Bounds per minute, per day (UTC) and at a time."""

    requests_per_minute: int | None = None
    prompt_tokens_per_minute: int | None = None
    output_tokens_per_minute: int | None = None
    requests_per_day: int | None = None
    prompt_tokens_per_day: int | None = None
    output_tokens_per_day: int | None = None
    concurrent_requests: int | None = None

    @property
    def unlimited(self) -> bool:
        """Whether nothing is bounded, so that nobody has to be asked."""
        return self == NO_QUOTAS


NO_QUOTAS = Quotas()


@dataclass(frozen=True, slots=True)
class BudgetStep:
    """What happens once ``percent`` of a budget is spent or reserved."""

    percent: int
    actions: tuple[BudgetAction, ...]


DEFAULT_STEPS = (BudgetStep(80, ("warn", "webhook")), BudgetStep(100, ("refuse", "webhook")))


@dataclass(frozen=True, slots=True)
class Budget:
    """USD per calendar month (UTC). ``webhook_url`` is told when a step is reached."""

    usd_per_month: Decimal
    steps: tuple[BudgetStep, ...] = DEFAULT_STEPS
    webhook_url: str | None = None
