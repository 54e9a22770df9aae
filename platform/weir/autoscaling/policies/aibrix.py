"""AIBrix' pod autoscaler (APA): a metric over its target, with a band in which nothing is done.

After vllm-project/aibrix, docs/source/features/autoscaling: the metric is the KV cache's use here;
up beyond ``1 + up_band``, down below ``1 - down_band``, to ``current * metric / target``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from weir.autoscaling.policies.counting import bounded, spread, total
from weir.autoscaling.registry import register
from weir.autoscaling.report import Decision, Explanation, ModelState

#: Its default limit of growth in one step.
_MOST_AT_ONCE = 2.0


@dataclass(frozen=True, slots=True)
class ApaParams:
    """``down_delay_s``: so long less must have been enough."""

    kv_use: Annotated[float, Field(gt=0, le=1)] = 0.5
    up_band: Annotated[float, Field(ge=0)] = 0.1
    down_band: Annotated[float, Field(ge=0, lt=1)] = 0.2
    down_delay_s: Annotated[float, Field(ge=0)] = 300.0


@register("aibrix-apa", ApaParams)
class Apa:
    """Worth: AIBrix' default rule; rows of ``weir bench autoscale`` compare."""

    def __init__(self, params: ApaParams) -> None:
        self._params = params

    def decide(self, model: ModelState, now_s: float, state: Any) -> Decision:
        params, current = self._params, max(1, total(model.pools))
        ready = [pool for pool in model.pools if pool.ready]
        replicas = max(1, sum(pool.ready for pool in ready))
        use = sum(pool.kv_use * pool.ready for pool in ready) / replicas
        ratio = min(_MOST_AT_ONCE, use / params.kv_use)
        wanted = bounded(model.pools, current * ratio)
        low_s = state if ratio < 1 - params.down_band else None
        if ratio < 1 - params.down_band and low_s is None:
            low_s = now_s
        taken = current
        if ratio > 1 + params.up_band:
            taken = wanted
        elif low_s is not None and now_s - low_s >= params.down_delay_s:
            taken = min(current, wanted)
        seen = {"kv_use": use, "ratio": ratio}
        because = f"KV use {use:.2f} beside the target {params.kv_use:.2f}"
        return Decision(spread(model.pools, taken), Explanation(seen, because), state=low_s)
