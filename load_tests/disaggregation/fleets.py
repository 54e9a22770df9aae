"""Fleets of the same engines, some with roles, and the rules that are run on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from load_tests.disaggregation.traffic import Traffic
from load_tests.sim.splitting import SplittingSystem
from load_tests.sim.timing import StepTiming
from load_tests.sim.weir_system import WeirSystem, class_profile
from router.types import Role


@dataclass(frozen=True, slots=True)
class Contender:
    """``rule`` on a fleet of which ``prefill`` eighths are prefill replicas and the others decode
    ones (0: all mixed). ``kind``: ``fixed``, ``peer`` or ``weir``. ``splits``: all are mixed at
    first, and their roles follow the demand."""

    name: str
    kind: str
    rule: str
    prefill: int
    params: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    splits: bool = False

    def roles(self, replicas: int) -> tuple[Role, ...]:
        """Of each replica."""
        if not self.prefill:
            return ()
        count = max(1, min(replicas - 1, round(replicas * self.prefill / 8)))
        prefill: list[Role] = ["prefill"] * count
        decode: list[Role] = ["decode"] * (replicas - count)
        return (*prefill, *decode)

    def system(self, traffic: Traffic, timing: StepTiming) -> WeirSystem:
        """A gateway with this rule. ``timing``: of the engines."""
        profile = class_profile(traffic.slos)
        routing = replace(profile.routing, rule=self.rule, rule_params=self.params)
        named = replace(profile, routing=routing, name=self.name)
        if self.splits:
            tpot_s = min(slo.tpot_s for slo in traffic.slos.values())
            return SplittingSystem(named, timing, tpot_s)
        return WeirSystem(named)


PREFILL_EIGHTHS = (2, 4, 6)
ADAPTIVE = "adaptive, 4P+4D"


def contenders() -> list[Contender]:
    """All rows: the fixed choices and weir's rule at three ratios, the peers' at the middle one."""
    rows = [Contender("never, all mixed", "fixed", "never", 0)]
    for eighths in PREFILL_EIGHTHS:
        shape = f"{eighths}P+{8 - eighths}D"
        rows.append(Contender(f"always, {shape}", "fixed", "always", eighths))
        rows.append(Contender(f"adaptive, {shape}", "weir", "adaptive", eighths))
    first = {"uncached_tokens": 1000, "uncached_ratio": 1.0, "queued_requests": 2.0}
    return [
        *rows,
        Contender("adaptive, roles by demand", "weir", "adaptive", 0, splits=True),
        Contender("llm-d, 4P+4D", "peer", "llm-d", 4),
        Contender("dynamo isl_bounding, 4P+4D", "peer", "dynamo", 4),
        Contender("dynamo length and queue, 4P+4D", "peer", "dynamo", 4, first),
    ]
