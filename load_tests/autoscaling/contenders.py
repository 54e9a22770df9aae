"""Which policies compete, each with a grid that it is tuned on, on a week that is not reported.

A peer manages one kind of replica, as its makers' deployments do; it gets the kind that is cheapest
for the traffic, and its grid says from which market. Streams of a replica at its planned load
(``streams``) are the unit of those that count requests.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from load_tests.autoscaling.fluid import PoolKind


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

    def choices(self, streams: float) -> Iterator[dict[str, Any]]:
        """Every combination of parameters. Values named ``target*`` are multiples of
        ``streams``."""
        for values in itertools.product(*self.grid.values()):
            chosen = dict(zip(self.grid, values, strict=True))
            yield dict(self.fixed) | {
                name: value * streams if name.startswith("target") else value
                for name, value in chosen.items()
            }

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
    """At the load that keeps the limits, on demand prices left aside: what the work costs."""
    usable = kind.table.saturated_per_s * kind.table.capacity.usable
    return kind.state.usd_per_hour / usable


def _cheapest(kinds: Sequence[PoolKind]) -> list[PoolKind]:
    """Those on the accelerator whose work costs least on demand."""
    on_demand = [kind for kind in kinds if kind.state.market == "on_demand"]
    best = min(on_demand, key=usd_per_request).state.accelerator
    return [kind for kind in kinds if kind.state.accelerator == best]


_WEIR = {"headroom": (0.3, 0.5, 0.7), "down_after_s": (300.0,)}
ON_DEMAND = (
    Contender(
        "weir, foretelling",
        "weir",
        {**_WEIR, "risk": (0.02,)},
        {"checked_s": 6 * 3600.0},
        all_kinds=True,
    ),
    Contender("weir", "weir", _WEIR, all_kinds=True),
    Contender("weir, 2 % may spill", "weir", _WEIR, all_kinds=True, spills=True),
    Contender(
        "Ray Serve",
        "ray-serve",
        {
            "target_ongoing_requests": (0.05, 0.1, 0.15, 0.2, 0.3),
            "downscale_delay_s": (300.0, 600.0),
        },
    ),
    Contender(
        "KPA",
        "kpa",
        {"target": (0.1, 0.2, 0.3, 0.4), "scale_down_delay_s": (0.0, 300.0)},
    ),
    Contender(
        "Dynamo, SLA planner",
        "dynamo-sla",
        {"headroom": (0.2, 0.5, 0.7, 0.9, 1.2), "interval_s": (60.0, 180.0)},
    ),
    Contender(
        "llm-d, latency",
        "llm-d-slo",
        {"aim": (0.2, 0.3, 0.5, 0.7, 0.9), "down_window_s": (300.0, 900.0)},
    ),
    Contender(
        "llm-d, tokens",
        "llm-d-token",
        {"kv_use": (0.03, 0.04, 0.05, 0.07), "down_window_s": (300.0, 900.0)},
    ),
    Contender(
        "AIBrix, APA",
        "aibrix-apa",
        {"kv_use": (0.03, 0.04, 0.05, 0.07), "down_delay_s": (300.0, 900.0)},
    ),
)
SPOT = (
    Contender(
        "weir, with spot",
        "weir",
        _WEIR,
        markets=("on_demand", "spot"),
        all_kinds=True,
    ),
    Contender(
        "Dynamo, SLA planner, spot first",
        "dynamo-sla",
        {"headroom": (0.5, 0.9, 1.2, 1.6), "interval_s": (60.0,)},
        markets=("spot", "on_demand"),
    ),
    Contender(
        "Ray Serve, spot first",
        "ray-serve",
        {"target_ongoing_requests": (0.05, 0.1, 0.15), "downscale_delay_s": (300.0,)},
        markets=("spot", "on_demand"),
    ),
)
