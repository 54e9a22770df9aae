"""Dynamo's SLA planner: demand foretold, divided by what an engine does within the limits.

After ai-dynamo/dynamo, components/planner (throughput mode): every ``interval_s`` it takes the
prompt and output tokens of the last interval as the next one's (its constant predictor; ARIMA and
Prophet are its others), and asks for their quotient by the engine's profiled rates at the SLO,
times a correction for how the limits were kept; one replica up or down at a time between intervals
(its load mode) is ``fast``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from weir.autoscaling.policies.counting import bounded, spread, total
from weir.autoscaling.registry import register
from weir.autoscaling.report import Decision, Explanation, ModelState


@dataclass(frozen=True, slots=True)
class DynamoParams:
    """``headroom``: more than is foretold, as a share. ``fast``: react between intervals."""

    interval_s: Annotated[float, Field(gt=0)] = 180.0
    headroom: Annotated[float, Field(ge=0)] = 0.0
    fast: bool = True


@register("dynamo-sla", DynamoParams)
class DynamoSla:
    """Worth: Dynamo's default; rows of ``weir bench autoscale`` compare."""

    def __init__(self, params: DynamoParams) -> None:
        self._params = params

    def decide(self, model: ModelState, now_s: float, state: Any) -> Decision:
        params, current = self._params, max(1, total(model.pools))
        planned_s, floor = state or (None, 1)
        because = "between two intervals"
        if planned_s is None or now_s - planned_s >= params.interval_s:
            planned_s, floor = now_s, bounded(model.pools, self._needed(model))
            because = "demand of the last interval over an engine's rate at the SLO"
            taken = floor
        else:
            taken = max(floor, current)
            if params.fast:
                taken = max(floor, self._one_step(model, current))
        seen = {"floor": float(floor)}
        targets = spread(model.pools, bounded(model.pools, taken))
        return Decision(targets, Explanation(seen, because), state=(planned_s, floor))

    def _needed(self, model: ModelState) -> float:
        first = model.pools[0].capacity
        demands = model.classes.values()
        computed = sum(d.computed_tokens_per_s for d in demands)
        output = sum(d.output_tokens_per_s for d in demands)
        seconds = computed / first.prefill_tokens_per_s + output / first.decode_tokens_per_s
        slow = max(
            (
                max(d.ttft_p90_s / model.ttft_slo_s, d.tpot_p90_s / model.tpot_slo_s)
                for d in demands
            ),
            default=0.0,
        )
        correction = min(2.0, max(1.0, slow))
        return seconds / first.usable * (1 + self._params.headroom) * correction

    def _one_step(self, model: ModelState, current: int) -> int:
        slow = any(
            d.ttft_p90_s > model.ttft_slo_s or d.tpot_p90_s > model.tpot_slo_s
            for d in model.classes.values()
        )
        starting = any(pool.starting for pool in model.pools)
        return current + 1 if slow and not starting else current
