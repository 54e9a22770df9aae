"""How a model's requests are admitted and placed, as configured, for gateway and benches alike.

What a benchmark calls "as shipped" is built by :func:`shipped_profile`, and both the gateway and
the simulator get their dispatcher from :meth:`RoutingProfile.dispatcher`; so what is measured is
what ships.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import router.scorers  # noqa: F401 - registers the policies
from router.admission import AdmissionSettings, parse_settings
from router.admission.outcomes import SpillRule
from router.dispatcher import Dispatcher
from router.policy import build_policy
from router.router import Router
from weir.settings import load_settings


@dataclass(frozen=True, slots=True)
class RoutingProfile:
    """A routing policy with its parameters, and admission."""

    policy: str = "weir"
    params: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    admission: AdmissionSettings = field(default_factory=AdmissionSettings)

    def dispatcher(
        self,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
        rng: random.Random,
        spill: SpillRule | None = None,
    ) -> Dispatcher:
        """A dispatcher with a router of its own, without replicas yet.

        Raises:
            ConfigError: no such policy or parameter.
        """
        router = Router(build_policy(self.policy, self.params), clock, rng)
        return Dispatcher(router, self.admission, clock, wall_clock, spill=spill)


def shipped_profile(name: str = "laptop") -> RoutingProfile:
    """As the settings profile of that name ships it, for its first model.

    Raises:
        SettingsError: no such profile.
    """
    settings = load_settings(name)
    routing = settings.models[0].routing
    return RoutingProfile(routing.policy, routing.params, parse_settings(settings.admission))
