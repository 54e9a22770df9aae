"""How many replicas there may be, and which policy chooses the number."""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field, ValidationInfo, model_validator

from weir.settings.parts import chosen, parts_of
from weir.settings.section import Section, refuse


class CapacitySettings(Section):
    """What one replica can do, as far as is known before it has been observed.

    ``prefill_tokens_per_s``, ``decode_tokens_per_s``: when it does nothing else. ``usable``: the
    share of its time that may be planned for, so that the rest keeps TTFT and TPOT in their limits.
    ``start_s``: from asking for a replica until it serves. ``learned``: False where the tokens per
    second are taken as they are given, whatever is observed.
    """

    prefill_tokens_per_s: float = Field(4000.0, gt=0)
    decode_tokens_per_s: float = Field(1000.0, gt=0)
    usable: float = Field(0.8, gt=0, le=1)
    start_s: float = Field(120.0, gt=0)
    learned: bool = True


class AutoscalingSettings(Section):
    """The policy of the section ``autoscaling`` chooses between ``min_replicas`` and
    ``max_replicas``. With 0 the model, or the pool, may sleep: requests that come meanwhile are
    held until a replica is up, or answered by the model's student. ``interruptions_per_hour``: how
    often a replica's machine is taken away, until that has been learned."""

    min_replicas: int = Field(1, ge=0)
    max_replicas: int = Field(1, ge=1)
    capacity: CapacitySettings = CapacitySettings()
    interruptions_per_hour: float = Field(0.0, ge=0)

    @model_validator(mode="after")
    def _grows(self) -> Self:
        if self.max_replicas < self.min_replicas:
            raise ValueError("max_replicas must be at least min_replicas")
        return self

    def begins_with(self, replicas: int) -> int:
        """Where ``replicas`` would be within the bounds."""
        return min(max(replicas, self.min_replicas), self.max_replicas)


class ScalingSettings(Section):
    """Which policy chooses the numbers of replicas of all models, and its parameters.

    ``period_s``: how often it is asked. ``hold_s``: so long a request waits for a model that
    sleeps. ``keep_days``: so long explanations are kept.
    """

    policy: str = "weir"
    params: dict[str, Any] = Field(default_factory=dict)
    period_s: float = Field(5.0, ge=0.5)
    hold_s: float = Field(120.0, ge=0)
    keep_days: float = Field(7.0, gt=0)

    @model_validator(mode="after")
    def _is_registered(self, info: ValidationInfo) -> Self:
        if (parts := parts_of(info)) is not None:
            refuse(chosen(parts.autoscaling, self.policy, self.params, "policy"))
        return self
