"""llm-d's two laws for KEDA, which replaced its variant autoscaler in 2026.

``llm-d-slo``: current replicas times how far the 90th percentiles of TTFT and TPOT are over their
limits. ``llm-d-token``: queued prompt tokens over what a replica computes in the time that TTFT
leaves behind a prompt's own, or KV use over 0.8 of what is there, whichever is more. After llm-d,
docs (autoscaling, KEDA on the router's metrics); how KEDA smooths is Kubernetes' own rule: up at
once, down to the highest wish of the last ``down_window_s`` (300 s by default).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from weir.autoscaling.policies.counting import bounded, spread, total
from weir.autoscaling.registry import register
from weir.autoscaling.report import Decision, Explanation, ModelState
from weir.autoscaling.steady import steadied

#: Kubernetes' autoscaler at most doubles in one step.
_MOST_AT_ONCE = 2.0


@dataclass(frozen=True, slots=True)
class LlmdSloParams:
    """``aim``: share of the limits that is aimed at. ``band``: no change for less (Kubernetes'
    tolerance)."""

    aim: Annotated[float, Field(gt=0, le=1)] = 0.8
    band: Annotated[float, Field(ge=0)] = 0.1
    down_window_s: Annotated[float, Field(ge=0)] = 300.0


@register("llm-d-slo", LlmdSloParams)
class LlmdSlo:
    """Worth: llm-d's rule by latency; rows of ``weir bench autoscale`` compare."""

    def __init__(self, params: LlmdSloParams) -> None:
        self._params = params

    def decide(self, model: ModelState, now_s: float, state: Any) -> Decision:
        params, current = self._params, max(1, total(model.pools))
        slow = max(
            (
                max(d.ttft_p90_s / model.ttft_slo_s, d.tpot_p90_s / model.tpot_slo_s)
                for d in model.classes.values()
            ),
            default=0.0,
        )
        ratio = min(_MOST_AT_ONCE, slow / params.aim)
        wanted = current if abs(ratio - 1) <= params.band else bounded(model.pools, current * ratio)
        taken, kept = steadied(state or (), now_s, {"": wanted}, params.down_window_s)
        because = f"90th percentiles at {slow:.2f} of their limits"
        targets = spread(model.pools, bounded(model.pools, taken[""]))
        return Decision(targets, Explanation({"slow": slow}, because), state=kept)


@dataclass(frozen=True, slots=True)
class LlmdTokenParams:
    """``kv_use``: of the cache, that is aimed at."""

    kv_use: Annotated[float, Field(gt=0, le=1)] = 0.8
    down_window_s: Annotated[float, Field(ge=0)] = 300.0


@register("llm-d-token", LlmdTokenParams)
class LlmdToken:
    """Worth: llm-d's rule by tokens; rows of ``weir bench autoscale`` compare."""

    def __init__(self, params: LlmdTokenParams) -> None:
        self._params = params

    def decide(self, model: ModelState, now_s: float, state: Any) -> Decision:
        params, first = self._params, model.pools[0].capacity
        queued = sum(d.waiting_tokens for d in model.classes.values())
        requests = sum(d.arrivals_per_s for d in model.classes.values())
        computed = sum(d.computed_tokens_per_s for d in model.classes.values())
        prompt = computed / requests if requests else 0.0
        left_s = max(0.1, model.ttft_slo_s - prompt / first.prefill_tokens_per_s)
        by_queue = queued / first.prefill_tokens_per_s / left_s
        replicas = max(1, sum(pool.ready for pool in model.pools))
        use = sum(pool.kv_use * pool.ready for pool in model.pools) / replicas
        by_kv = use * replicas / params.kv_use
        most = max(1, total(model.pools)) * _MOST_AT_ONCE
        wanted = bounded(model.pools, min(most, max(by_queue, by_kv)))
        taken, kept = steadied(state or (), now_s, {"": wanted}, params.down_window_s)
        seen = {"by_queue": by_queue, "by_kv": by_kv}
        because = "queued prompt tokens" if by_queue > by_kv else "KV use"
        targets = spread(model.pools, bounded(model.pools, taken[""]))
        return Decision(targets, Explanation(seen, because), state=kept)
