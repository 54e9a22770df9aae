"""AIBrix' pod autoscaler (APA): a metric over its target, with a band in which nothing is done.

After vllm-project/aibrix, pkg/controller/podautoscaler/algorithm/apa.go and context.go: the metric
is the KV cache's use here; up beyond ``1 + up_band``, down below ``1 - down_band``, to ``current *
metric / target``, at most doubled or halved in one step; down only to the highest of what was
wanted in the last ``down_cooldown_s``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from weir.autoscaling.policies.counting import bounded, spread, total
from weir.autoscaling.registry import register
from weir.autoscaling.report import Decision, Explanation, ModelState
from weir.autoscaling.steady import steadied


@dataclass(frozen=True, slots=True)
class ApaParams:
    """Defaults as AIBrix'."""

    kv_use: Annotated[float, Field(gt=0, le=1)] = 0.5
    up_band: Annotated[float, Field(ge=0)] = 0.1
    down_band: Annotated[float, Field(ge=0, lt=1)] = 0.1
    most_up: Annotated[float, Field(gt=1)] = 2.0
    most_down: Annotated[float, Field(gt=1)] = 2.0
    down_cooldown_s: Annotated[float, Field(ge=0)] = 300.0


@register("aibrix-apa", ApaParams)
class Apa:
    """Worth: AIBrix' default rule; rows of ``weir bench autoscale`` compare."""

    def __init__(self, params: ApaParams) -> None:
        self._params = params

    def decide(self, model: ModelState, now_s: float, state: Any) -> Decision:
        params, current = self._params, max(1, total(model.pools))
        ready = sum(pool.ready for pool in model.pools)
        use = sum(pool.kv_use * pool.ready for pool in model.pools) / max(1, ready)
        ratio, wanted = use / params.kv_use, current
        if ratio > 1 + params.up_band:
            wanted = min(math.ceil(current * ratio), math.ceil(current * params.most_up))
        elif ratio < 1 - params.down_band:
            wanted = max(math.ceil(current * ratio), math.floor(current / params.most_down))
        wanted = bounded(model.pools, wanted)
        taken, kept = steadied(state or (), now_s, {"": wanted}, params.down_cooldown_s)
        seen = {"kv_use": use, "ratio": ratio}
        because = f"KV use {use:.2f} beside the target {params.kv_use:.2f}"
        targets = spread(model.pools, bounded(model.pools, taken[""]))
        return Decision(targets, Explanation(seen, because), state=kept)
