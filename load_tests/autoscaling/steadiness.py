"""A week of constant load: nothing may change once the first replicas are there."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import weir.autoscaling.policies  # noqa: F401 - registers the policies
from load_tests.report import Row
from weir.autoscaling.registry import build_policy
from weir.autoscaling.report import Capacity, Demand, ModelState, PoolState, Sample

_DECIDE_S = 30.0
_WEEK_S = 7 * 86_400.0
_SAMPLE_S = 120.0


def steadiness_rows(levels: int, only: int | None = None) -> list[Row]:
    """One row for each level, from a third of a replica to several hundred."""
    return [
        {
            "table": "constant load for a week",
            "system": "weir",
            "level": level,
            **steady(10 ** (2.5 * level / max(1, levels - 1)) * 4e3),
        }
        for level in (range(levels) if only is None else (only,))
    ]


def steady(computed_tokens_per_s: float) -> dict[str, Any]:
    """Decisions of a week at one level, each with what the one before asked for."""
    policy, state = build_policy("weir", {}), None
    pools = [
        PoolState("a", Capacity(4e4, 1.2e4), 3.0, most=2000),
        PoolState("b", Capacity(1.5e4, 4e3), 1.2, most=2000),
    ]
    counts = {"a": 0, "b": 0}
    changes = first = 0
    history: list[Sample] = []
    output = computed_tokens_per_s / 5
    demand = Demand(computed_tokens_per_s / 500, computed_tokens_per_s, output)
    for number in range(int(_WEEK_S / _DECIDE_S)):
        now_s = number * _DECIDE_S
        if now_s % _SAMPLE_S == 0:
            history = [*history[-1499:], Sample(now_s, computed_tokens_per_s, output)]
        seen = tuple(_with(pool, counts[pool.name]) for pool in pools)
        model = ModelState("m", {"interactive": demand}, seen, history=tuple(history))
        decision = policy.decide(model, now_s, state)
        state = decision.state
        if dict(decision.targets) != counts:
            changes += 1
            first += now_s < 3600
        counts = dict(decision.targets)
    return {"replicas": sum(counts.values()), "changes_after_the_first_hour": changes - first}


def _with(pool: PoolState, count: int) -> PoolState:
    return replace(pool, ready=count)
