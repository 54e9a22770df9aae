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

import router.disaggregation.rules
import router.scorers  # noqa: F401 - registers the policies, as the line above the rules
from router.admission import AdmissionSettings
from router.admission.outcomes import SpillRule
from router.admission.waiting import TenantWeights
from router.disaggregation.pace import Slo
from router.disaggregation.placing import Placing
from router.disaggregation.rule import build_rule
from router.dispatcher import Dispatcher
from router.policy import build_policy
from router.router import Router
from weir.settings import load_settings


@dataclass(frozen=True, slots=True)
class RoutingProfile:
    """A routing policy with its parameters, admission, and the rule that decides whether to
    disaggregate where replicas have roles."""

    policy: str = "weir"
    params: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    admission: AdmissionSettings = field(default_factory=AdmissionSettings)
    rule: str = "adaptive"
    rule_params: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))

    def dispatcher(
        self,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
        rng: random.Random,
        spill: SpillRule | None = None,
        weights: TenantWeights | None = None,
    ) -> Dispatcher:
        """A dispatcher with a router of its own, without replicas yet. ``weights``: see
        :class:`router.admission.AdmissionQueue`.

        Raises:
            ConfigError: no such policy or parameter.
        """
        placing = Placing(build_rule(self.rule, self.rule_params), _slos(self.admission))
        router = Router(build_policy(self.policy, self.params), clock, rng, placing=placing)
        return Dispatcher(router, self.admission, clock, wall_clock, spill=spill, weights=weights)


def _slos(admission: AdmissionSettings) -> Mapping[str, Slo]:
    usual = Slo()
    return {
        c.name: Slo(
            c.ttft_slo_ms / 1e3 if c.ttft_slo_ms else usual.ttft_s,
            c.tpot_slo_ms / 1e3 if c.tpot_slo_ms else usual.tpot_s,
        )
        for c in admission.classes
    }


def shipped_profile(name: str = "laptop") -> RoutingProfile:
    """As the settings profile of that name ships it, for its first model.

    Raises:
        SettingsError: no such profile.
    """
    settings = load_settings(name)
    routing = settings.models[0].routing
    return RoutingProfile(
        routing.policy,
        routing.params,
        settings.admission,
        routing.disaggregation.rule,
        routing.disaggregation.params,
    )
