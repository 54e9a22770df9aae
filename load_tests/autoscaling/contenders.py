"""Which policies compete, each with a grid that it is tuned on, on a week that is not reported.

A peer manages one kind of replica, as its makers' deployments do; it gets the kind that is cheapest
for the traffic, and the row's name says from which market. Values that count requests or KV use are
multiples of what a replica has at its planned load, so that each grid lies around the right value
whatever the traffic. ``gated``: batch work stands behind a gate that the policy does not see and
gets what urgent work leaves. That is what llm-d's async processor does, so it is part of its grids;
no other peer has such a thing, and one row shows what it would be worth to Dynamo's planner.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from load_tests.autoscaling.fleet import PoolKind


@dataclass(frozen=True, slots=True)
class Contender:
    """``policy`` with each combination of ``grid``; ``markets``: of the pools that it is given.
    ``all_kinds``: whether it chooses among kinds of replicas itself."""

    name: str
    policy: str
    grid: Mapping[str, Sequence[Any]]
    fixed: Mapping[str, Any] = field(default_factory=dict)
    markets: tuple[str, ...] = ("on_demand",)
    all_kinds: bool = False
    spills: bool = False
    gates: tuple[bool, ...] = (False,)

    @property
    def ours(self) -> bool:
        """weir's own policy."""
        return self.policy == "weir"

    @property
    def spot(self) -> bool:
        """Whether it may use spot replicas."""
        return "spot" in self.markets

    def choices(self, first: PoolKind, has_batch: bool) -> Iterator[dict[str, Any]]:
        """Every combination of parameters; ``gated`` is one where there is batch work. Values
        named ``target*`` and ``kv_use`` are multiples of what ``first`` has at its planned load."""
        row = first.table.at(first.table.capacity.usable)
        for gated in self.gates if has_batch else self.gates[:1]:
            for values in itertools.product(*self.grid.values()):
                chosen = dict(self.fixed)
                for name, value in zip(self.grid, values, strict=True):
                    if name == "kv_use":
                        value = min(1.0, value * row.streams / first.table.room)
                    elif name.startswith("target"):
                        value *= row.streams
                    chosen[name] = value
                yield {**chosen, "gated": gated} if len(self.gates) > 1 or gated else chosen

    def pools(self, kinds: Sequence[PoolKind]) -> tuple[PoolKind, ...]:
        """Those that it is given, in the order of its markets; the cheapest kind first."""
        usable = kinds if self.all_kinds else _cheapest(kinds)
        return tuple(
            kind
            for market in self.markets
            for kind in sorted(usable, key=usd_per_request)
            if kind.state.market == market
        )


def usd_per_request(kind: PoolKind) -> float:
    """At the load that keeps the limits: what the work costs."""
    usable = kind.table.saturated_per_s * kind.table.capacity.usable
    return kind.state.usd_per_hour / 3600 / usable


def _cheapest(kinds: Sequence[PoolKind]) -> list[PoolKind]:
    """Those on the accelerator whose work costs least on demand."""
    on_demand = [kind for kind in kinds if kind.state.market == "on_demand"]
    best = min(on_demand, key=usd_per_request).state.accelerator
    return [kind for kind in kinds if kind.state.accelerator == best]


_SHARES = (0.15, 0.22, 0.3, 0.4, 0.5, 0.65, 0.85)
#: How long less must have been enough, for those that have such a parameter.
_HOLDS = (300.0, 1800.0, 3600.0)
_LEARNED_S = 12 * 3600.0
_WEIR = {
    "headroom": (0.0, 0.1, 0.2, 0.3),
    "down_after_s": (900.0, 1800.0, 3600.0),
    "fade_s": (0.0, 7200.0),
    "gain": (0.3, 0.6),
}
#: ``keep``: what is left when a place is lost. Half costs nothing where there are two places.
_WEIR_SPOT = {**_WEIR, "down_after_s": (900.0, 1800.0), "gain": (0.3,), "keep": (0.5, 0.7)}
_SPILLING = {"headroom": (0.0, 0.1, 0.2), "down_after_s": (300.0, 900.0, 1800.0), "gain": (0.3,)}
#: Room by the past's own errors, without a season: the twin that a forecast has to beat.
_MARGIN = {"risk": (0.02, 0.05, 0.1), "headroom": (0.0, 0.1), "down_after_s": (300.0, 1800.0)}
_DYNAMO = {
    "headroom": (0.3, 0.45, 0.6, 0.7, 0.85, 1.0),
    "interval_s": (60.0, 180.0),
    "predictor": ("constant", "trend"),
}
ON_DEMAND = (
    Contender("weir", "weir", _WEIR, all_kinds=True),
    Contender("weir, 2 % may spill", "weir", _SPILLING, all_kinds=True, spills=True),
    Contender(
        "weir, margin by its own errors",
        "weir",
        _MARGIN,
        {"checked_s": _LEARNED_S},
        all_kinds=True,
    ),
    Contender(
        "weir, foretelling by the day before",
        "weir",
        _MARGIN,
        {"checked_s": _LEARNED_S, "season_s": 86_400.0},
        all_kinds=True,
    ),
    Contender(
        "Ray Serve",
        "ray-serve",
        {"target_ongoing_requests": _SHARES, "downscale_delay_s": (300.0, 600.0, 1800.0, 3600.0)},
    ),
    Contender("KPA", "kpa", {"target": _SHARES, "scale_down_delay_s": _HOLDS}),
    Contender("Dynamo, SLA planner", "dynamo-sla", _DYNAMO),
    Contender(
        "Dynamo, SLA planner with load mode",
        "dynamo-sla",
        {
            "headroom": (0.2, 0.4, 0.6, 0.8),
            "interval_s": (60.0, 180.0),
            "down_share": (0.6, 0.8),
        },
        {"fast": True},
    ),
    Contender(
        "llm-d, requests",
        "llm-d-requests",
        {"target_running": _SHARES, "target_waiting": (0.1,), "down_window_s": _HOLDS},
        gates=(False, True),
    ),
    Contender(
        "llm-d, tokens",
        "llm-d-token",
        {"kv_use": _SHARES, "down_window_s": _HOLDS},
        gates=(False, True),
    ),
    Contender(
        "llm-d, latency",
        "llm-d-slo",
        {
            "up": (0.55, 0.65, 0.75),
            "down": (0.4, 0.5),
            "down_pods": (1, 4, 16),
            "down_window_s": (180.0, 1800.0),
        },
        gates=(False, True),
    ),
    Contender("AIBrix, APA", "aibrix-apa", {"kv_use": _SHARES, "down_cooldown_s": _HOLDS}),
    Contender("Dynamo, batch gated by hand", "dynamo-sla", _DYNAMO, gates=(True,)),
)
SPOT = (
    Contender("weir, with spot", "weir", _WEIR_SPOT, markets=("on_demand", "spot"), all_kinds=True),
    Contender(
        "weir, with spot, 2 % may spill",
        "weir",
        {**_SPILLING, "keep": (0.5, 0.7)},
        markets=("on_demand", "spot"),
        all_kinds=True,
        spills=True,
    ),
    Contender(
        "Dynamo, SLA planner, spot first",
        "dynamo-sla",
        {"headroom": (0.3, 0.45, 0.6, 0.8, 1.1, 1.5), "interval_s": (60.0,)},
        markets=("spot", "on_demand"),
    ),
    Contender(
        "Ray Serve, spot first",
        "ray-serve",
        {
            "target_ongoing_requests": (0.15, 0.22, 0.3, 0.4, 0.5, 0.65),
            "downscale_delay_s": (600.0, 1800.0, 3600.0),
        },
        markets=("spot", "on_demand"),
    ),
)
