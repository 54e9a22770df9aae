"""What can be said of a tenant, in ``tenants:`` and in the database alike."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, PlainSerializer, model_validator

from weir.settings.fallback import TenantFallbackSettings
from weir.settings.section import Section

ModelName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,127}$")]
#: An adapter of a model: ``MODEL:NAME``.
AdapterId = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,127}:[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
]
TenantId = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
Count = Annotated[int, Field(ge=0)]


def _exact(value: object) -> object:
    return str(value) if isinstance(value, float) else value


#: An amount as it is written: a float of YAML or JSON is read by its shortest decimal form, and
#: the amount is written as text.
ExactUsd = Annotated[
    Decimal,
    BeforeValidator(_exact),
    Field(ge=0, max_digits=18, decimal_places=9, allow_inf_nan=False),
    PlainSerializer(str, return_type=str, when_used="json"),
]


class QuotaSettings(Section):
    """Bounds per minute, per day (UTC) and at a time. Null: none."""

    requests_per_minute: Count | None = None
    prompt_tokens_per_minute: Count | None = None
    output_tokens_per_minute: Count | None = None
    requests_per_day: Count | None = None
    prompt_tokens_per_day: Count | None = None
    output_tokens_per_day: Count | None = None
    concurrent_requests: Count | None = None


class BudgetStepSettings(Section):
    """What happens once ``percent`` of a budget is spent or reserved."""

    percent: int = Field(ge=1, le=1000)
    actions: tuple[Literal["warn", "webhook", "spill", "refuse"], ...] = Field(min_length=1)


class BudgetSettings(Section):
    """USD per calendar month (UTC). ``webhook_url`` is told when a step is reached."""

    usd_per_month: ExactUsd
    steps: tuple[BudgetStepSettings, ...] = (
        BudgetStepSettings(percent=80, actions=("warn", "webhook")),
        BudgetStepSettings(percent=100, actions=("refuse", "webhook")),
    )
    webhook_url: Annotated[str, Field(pattern=r"^https?://", max_length=2048)] | None = None

    @model_validator(mode="after")
    def _steps_rise(self) -> Self:
        percents = [step.percent for step in self.steps]
        if percents != sorted(set(percents)):
            raise ValueError("steps: expected rising percents, each once")
        return self


class TenantFields(Section):
    """Everything about a tenant but its id and keys.

    ``models``: names this tenant may use; empty means all. ``classes``: priority classes it may
    ask for (header ``x-weir-priority``), the first one is its default; empty means all, and the
    first class of ``admission`` that is called standard, or else the first. Tenants of the same
    ``prefix_group`` may hit each other's cached prefixes; without one a tenant hits only its own.
    ``adapters`` (``MODEL:NAME``) and ``features`` (services): those that the settings keep for some
    tenants and that this one may use too. ``weight``: its fair share relative to others; null is
    what ``admission`` says.
    ``model_quotas``: more bounds, by the model's name. ``retention_days``: so long its prompts and
    answers may be kept; 0 is never. ``trace_content``: its prompts and answers are told in traces.
    ``labels``: the operator's own, for reports. A tenant that is
    not ``enabled`` is refused.
    """

    models: tuple[ModelName, ...] = ()
    classes: tuple[Annotated[str, Field(min_length=1, max_length=63)], ...] = ()
    adapters: tuple[AdapterId, ...] = ()
    features: tuple[Annotated[str, Field(min_length=1, max_length=127)], ...] = ()
    prefix_group: TenantId | None = None
    weight: float | None = Field(None, gt=0, allow_inf_nan=False)
    quotas: QuotaSettings = QuotaSettings()
    model_quotas: dict[ModelName, QuotaSettings] = Field(default_factory=dict)
    budget: BudgetSettings | None = None
    fallback: TenantFallbackSettings = TenantFallbackSettings()
    retention_days: int = Field(0, ge=0, le=3650)
    trace_content: bool = False
    labels: dict[
        Annotated[str, Field(min_length=1, max_length=63)], Annotated[str, Field(max_length=255)]
    ] = Field(default_factory=dict, max_length=64)
    enabled: bool = True


class TenantSettings(TenantFields):
    """A tenant of the settings. Keys are stored as SHA-256 hex digests, never in clear."""

    id: TenantId
    key_sha256: tuple[Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")], ...] = ()
