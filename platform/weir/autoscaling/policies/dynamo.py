"""Dynamo's SLA planner: demand foretold, divided by what an engine does within the limits.

After ai-dynamo/dynamo, components/src/dynamo/planner/core (throughput_scaling.py, load_scaling.py,
2026): every ``interval_s`` (180 s) the requests and lengths of the interval are foretold by
``predictor`` (``constant``: the next is as the last; ``trend``: level and trend, as its Kalman
filter has them), and replicas are their quotient by an engine's rate at the SLO. With ``fast``
(its load mode, off by default) that is a floor, and between intervals one replica is added when the
limits are not kept, or taken away when the others would keep ``down_share`` of them, if none is
starting or leaving. ``headroom`` stands for a stricter SLO, which is how an operator gets room.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from weir.autoscaling.policies.counting import bounded, spread, total
from weir.autoscaling.registry import register
from weir.autoscaling.report import Decision, Explanation, ModelState

#: Of the steady gains of its Kalman filter (q_level 1, q_trend 0.1, r 10).
_LEVEL_GAIN, _TREND_GAIN = 0.40, 0.10


@dataclass(frozen=True, slots=True)
class DynamoParams:
    """``headroom``: more than is foretold, as a share. ``fast``: react between intervals."""

    interval_s: Annotated[float, Field(gt=0)] = 180.0
    headroom: Annotated[float, Field(ge=0)] = 0.0
    predictor: Literal["constant", "trend"] = "constant"
    fast: bool = False
    down_share: Annotated[float, Field(gt=0, le=1)] = 0.8


@register("dynamo-sla", DynamoParams)
class DynamoSla:
    """Worth: Dynamo's default; rows of ``weir bench autoscale`` compare."""

    def __init__(self, params: DynamoParams) -> None:
        self._params = params

    def decide(self, model: ModelState, now_s: float, state: Any) -> Decision:
        params, current = self._params, max(1, total(model.pools))
        planned_s, floor, level = state or (None, 1, None)
        because, taken = "between two intervals", current
        if planned_s is None or now_s - planned_s >= params.interval_s:
            level = self._foretold(_seconds(model), level)
            needed = (level[0] + level[1]) / model.pools[0].capacity.usable
            planned_s, floor = now_s, bounded(model.pools, needed * (1 + params.headroom))
            because = "demand of the last interval over an engine's rate at the SLO"
            taken = max(floor, current) if params.fast else floor
        if params.fast:
            taken = max(floor, self._one_step(model, taken))
        seen = {"floor": float(floor)}
        targets = spread(model.pools, bounded(model.pools, taken))
        return Decision(targets, Explanation(seen, because), state=(planned_s, floor, level))

    def _foretold(self, seconds: float, before: tuple[float, float] | None) -> tuple[float, float]:
        """Level and trend, in seconds of a replica's time per second."""
        if before is None or self._params.predictor == "constant":
            return seconds, 0.0
        guess = sum(before)
        wrong = seconds - guess
        return guess + _LEVEL_GAIN * wrong, before[1] + _TREND_GAIN * wrong

    def _one_step(self, model: ModelState, current: int) -> int:
        if any(pool.starting or pool.draining for pool in model.pools):
            return current
        if any(
            d.ttft_p90_s > model.ttft_slo_s or d.tpot_p90_s > model.tpot_slo_s
            for d in model.classes.values()
        ):
            return current + 1
        ready = sum(pool.ready for pool in model.pools)
        load = _seconds(model) / max(1, ready - 1) / model.pools[0].capacity.usable
        return current - 1 if ready > 1 and load < self._params.down_share else current


def _seconds(model: ModelState) -> float:
    """Of a replica's time, that arrive in a second."""
    first = model.pools[0].capacity
    computed = sum(d.computed_tokens_per_s for d in model.classes.values())
    output = sum(d.output_tokens_per_s for d in model.classes.values())
    return computed / first.prefill_tokens_per_s + output / first.decode_tokens_per_s
