"""Which policy chooses the replica, and which rule decides whether to disaggregate."""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field, ValidationInfo, model_validator

from weir.settings.parts import chosen, parts_of
from weir.settings.section import Section, refuse


class DisaggregationSettings(Section):
    """Which rule decides whether to disaggregate where replicas have roles; its parameters."""

    rule: str = "adaptive"
    params: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _is_registered(self, info: ValidationInfo) -> Self:
        if (parts := parts_of(info)) is not None:
            refuse(chosen(parts.rules, self.rule, self.params, "rule"))
        return self

    @property
    def pairs_of_mixed(self) -> bool:
        """Whether mixed replicas hand prompts over to each other."""
        return bool(self.params.get("pairs_of_mixed"))


class RoutingSettings(Section):
    """Which policy chooses the replica, and its parameters."""

    policy: str = "weir"
    params: dict[str, Any] = Field(default_factory=dict)
    disaggregation: DisaggregationSettings = DisaggregationSettings()

    @model_validator(mode="after")
    def _is_registered(self, info: ValidationInfo) -> Self:
        if (parts := parts_of(info)) is not None:
            refuse(chosen(parts.policies, self.policy, self.params, "policy"))
        return self
