"""The fluid model beside the request-level simulator, on sampled stretches of the reported week."""

from __future__ import annotations

import math
import random
from typing import Any

from load_tests.autoscaling.days import SLO, Days
from load_tests.autoscaling.elastic import drawn, run_requests
from load_tests.autoscaling.fleet import PoolKind, World
from load_tests.autoscaling.fluid import Fluid
from load_tests.autoscaling.traces import Ticks
from load_tests.sim.figures import Slo
from weir.autoscaling.registry import build_policy

_STRETCH_S = 2400.0
_THIN = 0.3
_POLICIES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("dynamo-sla", {"headroom": 0.3, "interval_s": 60.0}),
    ("weir", {"headroom": 0.45}),
)


def check_row(days: Days, number: int, seed: int) -> dict[str, Any]:
    """Stretch ``number``: three tenths of the urgent requests of forty minutes, one kind of
    replica, one policy, in both models."""
    rng = random.Random(seed + number)
    start_s = rng.randrange(0, int(7 * 86_400 / 600) - 4) * 600.0
    stretch = drawn(days.reported.part(start_s, start_s + _STRETCH_S), _THIN, 1.5, seed)
    place = days.kinds[0]
    policy, params = _POLICIES[number % len(_POLICIES)]
    first = _needed(place, stretch.ticks.part(0, 300.0))
    slo, made = Slo(SLO.ttft_s, SLO.tpot_s), days.engines[0]
    exact = run_requests(
        place, made[0], made[1], slo, build_policy(policy, params), stretch, first, seed
    )
    world = World((place,), SLO.ttft_s, SLO.tpot_s, seed=seed)
    fluid = Fluid(world, build_policy(policy, params), stretch.ticks).run(first)
    return {
        "table": "check of the fluid model",
        "system": policy,
        "trace": days.name,
        "hour": start_s / 3600,
        "requests": len(stretch.requests),
        "usd_requests": exact.usd,
        "usd_fluid": fluid.usd,
        "met_requests": exact.met,
        "met_fluid": fluid.met,
        "usd_error": fluid.usd / exact.usd - 1,
        "met_error": fluid.met - exact.met,
    }


def _needed(kind: PoolKind, ticks: Ticks) -> int:
    capacity, seconds = kind.table.capacity, len(ticks) * ticks.tick_s
    prompts = float(ticks.urgent_prompts.sum()) / seconds / capacity.prefill_tokens_per_s
    outputs = float(ticks.urgent_outputs.sum()) / seconds / capacity.decode_tokens_per_s
    return max(1, math.ceil((prompts + outputs) / capacity.usable))
