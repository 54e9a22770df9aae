"""Autoscaling policies by name: one file, one decorator, one frozen params dataclass each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar

from weir.autoscaling.report import Decision, ModelState
from weir.settings.parts import Registry


class AutoscalingPolicy(Protocol):
    """Pure: the same state of the model, time and own state give the same decision."""

    def decide(self, model: ModelState, now_s: float, state: Any) -> Decision:
        """How many replicas each pool should have. ``state``: what the last decision left, None at
        first."""
        ...


_F = TypeVar("_F", bound=Callable[..., AutoscalingPolicy])
POLICIES: Registry[AutoscalingPolicy] = Registry("autoscaling policy", "autoscaling.policy")


def register(name: str, params: type) -> Callable[[_F], _F]:
    """Class decorator: make a policy known by its config name. A name is taken only once."""
    return POLICIES.register(name, params)


def policy_names() -> tuple[str, ...]:
    """All registered names, sorted."""
    return POLICIES.names()


def build_policy(name: str, params: Mapping[str, Any] | None = None) -> AutoscalingPolicy:
    """Build a registered policy; an unknown name or parameter is a ``ConfigError``."""
    return POLICIES.build(name, params)
