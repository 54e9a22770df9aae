"""Policies made of scorers: "weighted" takes any, "weir" is the default profile."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from router.policy import register
from router.scorers.expected_work import ExpectedWork, ExpectedWorkParams
from router.scoring import WeightedPolicy, build_scorer, choose_least, scorer_names
from router.types import Decision, RouteRequest, Snapshot
from weir.errors import ConfigError


@dataclass(frozen=True)
class WeightedParams:
    """``scorers``: name → weight, or name → {weight, …that scorer's parameters}."""

    scorers: Mapping[str, Any] = field(default_factory=lambda: {"expected-work": 1.0})


@register("weighted", WeightedParams)
def weighted(params: WeightedParams) -> WeightedPolicy:
    """A profile of scorers with weights, from the settings."""
    parts = []
    for name, given in params.scorers.items():
        options = dict(given) if isinstance(given, Mapping) else {"weight": given}
        weight = options.pop("weight", 1.0)
        if isinstance(weight, bool) or not isinstance(weight, int | float) or weight < 0:
            raise ConfigError(
                f"routing.params.scorers.{name}.weight: expected a number ≥ 0, not {weight!r}"
            )
        parts.append((float(weight), build_scorer(name, options)))
    if not parts:
        known = ", ".join(scorer_names())
        raise ConfigError(f"routing.params.scorers: expected at least one of {known}")
    return WeightedPolicy(parts, "weighted")


@register("weir", ExpectedWorkParams)
class LeastExpectedWork:
    """The default profile: least expected work (see :mod:`router.scorers.expected_work`).

    "weighted" with that one scorer decides the same; this saves the way over scores.
    """

    def __init__(self, params: ExpectedWorkParams) -> None:
        self._work = ExpectedWork(params)

    def choose(self, request: RouteRequest, snapshot: Snapshot, rng: random.Random) -> Decision:
        columns = snapshot.columns
        costs = self._work.costs(request, snapshot)
        chosen = columns.fleet.ids[choose_least(request, columns, costs, rng)]
        return Decision(chosen, "least-expected-work", snapshot.overlap_blocks.get(chosen, 0))
