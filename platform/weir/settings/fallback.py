"""Settings of spilling: when a model's requests go to its student instead, and who may refuse."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from weir.settings.section import Section

Kind = Literal["long-tail", "overload", "failure", "cost", "capacity", "cascade"]
Usd = Annotated[float, Field(ge=0)]


class RegistrySettings(Section):
    """Where ``models[].source: registry:NAME@STAGE`` looks: a directory or an fsspec URL; none is
    ``registry`` in the state folder."""

    url: str | None = None


class KindSettings(Section):
    """``classes``: priority classes that may spill for this reason; empty means all."""

    enabled: bool = True
    classes: tuple[str, ...] = ()


class LongTailSettings(KindSettings):
    """The entity has no generated features, or the request's intent is one of ``rare_intents``."""

    rare_intents: tuple[str, ...] = ()


class OverloadSettings(KindSettings):
    """Spilling begins when the predicted time to the first token reaches ``enter_at`` times the
    class's SLO, and ends when it is down to ``leave_at`` times it, ``dwell_s`` later at the
    earliest. A waiting request spills when it has waited ``enter_at`` times the SLO."""

    classes: tuple[str, ...] = ("interactive",)
    enter_at: float = Field(0.5, gt=0, le=1)
    leave_at: float = Field(0.2, ge=0)
    dwell_s: float = Field(1.0, ge=0)

    @model_validator(mode="after")
    def _leaves_below(self) -> Self:
        if self.leave_at >= self.enter_at:
            raise ValueError("leave_at must be below enter_at")
        return self


class FailureSettings(KindSettings):
    """A circuit breaker: opens at ``failures`` within ``window_s``, lets one request through after
    ``open_s`` (doubled each time that one fails, up to ``max_open_s``), and closes after
    ``probes`` in a row came back."""

    window_s: float = Field(10.0, gt=0)
    failures: int = Field(3, ge=1)
    open_s: float = Field(1.0, gt=0)
    max_open_s: float = Field(30.0, gt=0)
    probes: int = Field(2, ge=1)

    @model_validator(mode="after")
    def _grows(self) -> Self:
        if self.max_open_s < self.open_s:
            raise ValueError("max_open_s must be at least open_s")
        return self


class CostSettings(KindSettings):
    """``price_cap_usd``: dearer requests go to the student; so do those of a tenant whose budget
    says ``spill`` (``tenants[].budget``)."""

    price_cap_usd: Usd | None = None

    @model_validator(mode="before")
    @classmethod
    def _budgets_moved(cls, given: Any) -> Any:
        old = ("tenant_budgets_usd", "budget_period_s")
        if isinstance(given, dict) and (found := next((key for key in old if key in given), None)):
            raise ValueError(
                f"{found} is gone: a budget is the tenant's, exact across gateways and by calendar "
                "month: tenants[].budget {usd_per_month, steps: [{percent, actions: [spill]}]}"
            )
        return given


class CapacitySpillSettings(KindSettings):
    """Where that is cheaper than one more replica, the autoscaler's policy has the student answer a
    part of the requests: at most ``max_share`` of those that may spill for this reason (0: none).
    ``usd_per_request``: what such an answer costs, its lower quality included. What the model
    itself answers tells how large requests are, so it always keeps half."""

    max_share: float = Field(0.0, ge=0, le=0.5)
    usd_per_request: float | None = Field(None, gt=0)

    @model_validator(mode="after")
    def _is_priced(self) -> Self:
        if self.max_share and self.usd_per_request is None:
            raise ValueError("max_share needs usd_per_request: what an answer of the student costs")
        return self


class CascadeSettings(KindSettings):
    """The student answers first; below ``threshold`` (mean log-probability of its first
    ``first_tokens`` tokens) the teacher answers instead. None: the student's manifest says."""

    enabled: bool = False
    first_tokens: int | None = Field(None, ge=1, le=256)
    threshold: float | None = Field(None, le=0)


class FallbackSettings(Section):
    """A model's fallback. ``student`` is the name of another served model."""

    student: str
    long_tail: LongTailSettings = LongTailSettings()
    overload: OverloadSettings = OverloadSettings()
    failure: FailureSettings = FailureSettings()
    cost: CostSettings = CostSettings()
    capacity: CapacitySpillSettings = CapacitySpillSettings()
    cascade: CascadeSettings = CascadeSettings()

    def kinds(self) -> dict[str, KindSettings]:
        """The reasons to spill, by their keys."""
        return {
            "long_tail": self.long_tail,
            "overload": self.overload,
            "failure": self.failure,
            "cost": self.cost,
            "capacity": self.capacity,
            "cascade": self.cascade,
        }


class TenantFallbackSettings(Section):
    """``forbid``: never for these reasons. ``require``: for these even where the model has them
    switched off, or not for the request's class."""

    forbid: tuple[Kind, ...] = ()
    require: tuple[Kind, ...] = ()

    @model_validator(mode="after")
    def _not_both(self) -> Self:
        if both := set(self.forbid) & set(self.require):
            raise ValueError(f"{sorted(both)[0]!r} is both forbidden and required")
        return self
