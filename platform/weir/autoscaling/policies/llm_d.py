"""llm-d's three laws for KEDA, which replaced its variant autoscaler in 2026.

After llm-d/llm-d, docs/architecture/autoscaling and guides/workload-autoscaling (November 2026):

* ``llm-d-requests`` (keda-epp, the path that it recommends): running requests over a target for
  each replica, or waiting ones over another, whichever asks for more; Kubernetes' tolerance of a
  tenth; doubled at most in 15 s, down to the highest wish of 300 s.
* ``llm-d-token`` (keda-epp-token-aware): seconds of queued prompt tokens over what TTFT leaves
  behind a prompt's own time, or full KV caches over 0.8; moved as above.
* ``llm-d-slo`` (slo-aware): the 90th percentile of TTFT or TPOT over its limit, at most 2, a mean
  of 45 s. Above ``up`` in proportion, less what is starting already; below ``down`` in proportion;
  between them nothing. At most doubled in a minute, and ``down_pods`` fewer in two minutes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from weir.autoscaling.policies.counting import bounded, spread, total
from weir.autoscaling.policies.hpa import Behavior, followed
from weir.autoscaling.registry import register
from weir.autoscaling.report import Decision, Explanation, ModelState

_MOST_SLOW = 2.0
_MEAN_S = 45.0
_TOLERANCE = 0.1


@dataclass(frozen=True, slots=True)
class LlmdSloParams:
    """``up``, ``down``: the band of latency over its limit in which nothing is done."""

    up: Annotated[float, Field(gt=0)] = 0.55
    down: Annotated[float, Field(gt=0)] = 0.40
    down_pods: Annotated[int, Field(ge=1)] = 1
    down_window_s: Annotated[float, Field(ge=0)] = 180.0


@register("llm-d-slo", LlmdSloParams)
class LlmdSlo:
    """Worth: llm-d's rule by latency; rows of ``weir bench autoscale`` compare."""

    def __init__(self, params: LlmdSloParams) -> None:
        self._params = params
        self._behavior = Behavior(
            up_window_s=30.0,
            up_period_s=60.0,
            down_window_s=params.down_window_s,
            down_share=0.0,
            down_pods=params.down_pods,
            down_period_s=120.0,
        )

    def decide(self, model: ModelState, now_s: float, state: Any) -> Decision:
        current = max(1, total(model.pools))
        seen, kept = state or ((), None)
        slow = min(_MOST_SLOW, _slowest(model))
        seen = (*(s for s in seen if s[0] > now_s - _MEAN_S), (now_s, slow))
        mean = sum(value for _, value in seen) / len(seen)
        wish = bounded(model.pools, self._wish(model, mean, current))
        taken, kept = followed(self._behavior, kept, now_s, current, wish)
        because = f"90th percentiles at {mean:.2f} of their limits"
        targets = spread(model.pools, bounded(model.pools, taken))
        return Decision(targets, Explanation({"slow": mean}, because), state=(seen, kept))

    def _wish(self, model: ModelState, slow: float, current: int) -> float:
        params = self._params
        if slow > params.up:
            ready = sum(pool.ready for pool in model.pools)
            credit = ready / current if 0 < ready < current else 1.0
            return current + max(0, math.ceil(current * (slow * credit / params.up - 1)))
        if slow < params.down:
            return current - math.floor(current * (1 - slow / params.down))
        return current


def _slowest(model: ModelState) -> float:
    return max(
        (
            max(d.ttft_p90_s / model.ttft_slo_s, d.tpot_p90_s / model.tpot_slo_s)
            for d in model.classes.values()
        ),
        default=0.0,
    )


@dataclass(frozen=True, slots=True)
class LlmdTokenParams:
    """``kv_use``: of the cache, that is aimed at. ``queue_share``: of the time that TTFT leaves."""

    kv_use: Annotated[float, Field(gt=0, le=1)] = 0.8
    queue_share: Annotated[float, Field(gt=0)] = 1.0
    down_window_s: Annotated[float, Field(ge=0)] = 300.0


@register("llm-d-token", LlmdTokenParams)
class LlmdToken:
    """Worth: llm-d's rule by tokens; rows of ``weir bench autoscale`` compare."""

    def __init__(self, params: LlmdTokenParams) -> None:
        self._params = params
        self._behavior = Behavior(down_window_s=params.down_window_s)

    def decide(self, model: ModelState, now_s: float, state: Any) -> Decision:
        params, first = self._params, model.pools[0].capacity
        queued = sum(d.waiting_tokens for d in model.classes.values())
        requests = sum(d.arrivals_per_s for d in model.classes.values())
        computed = sum(d.computed_tokens_per_s for d in model.classes.values())
        prompt = computed / requests if requests else 0.0
        left_s = max(0.1, model.ttft_slo_s - prompt / first.prefill_tokens_per_s)
        by_queue = queued / first.prefill_tokens_per_s / (left_s * params.queue_share)
        by_kv = sum(pool.kv_use * pool.ready for pool in model.pools) / params.kv_use
        seen = {"by_queue": by_queue, "by_kv": by_kv}
        because = "queued prompt tokens" if by_queue > by_kv else "KV use"
        return _moved(self._behavior, model, now_s, state, max(by_queue, by_kv), seen, because)


@dataclass(frozen=True, slots=True)
class LlmdRequestsParams:
    """``target_running``, ``target_waiting``: of each replica."""

    target_running: Annotated[float, Field(gt=0)] = 16.0
    target_waiting: Annotated[float, Field(gt=0)] = 1.0
    down_window_s: Annotated[float, Field(ge=0)] = 300.0


@register("llm-d-requests", LlmdRequestsParams)
class LlmdRequests:
    """Worth: llm-d's default; rows of ``weir bench autoscale`` compare."""

    def __init__(self, params: LlmdRequestsParams) -> None:
        self._params = params
        self._behavior = Behavior(down_window_s=params.down_window_s)

    def decide(self, model: ModelState, now_s: float, state: Any) -> Decision:
        params = self._params
        running = sum(pool.running_requests for pool in model.pools)
        waiting = sum(d.waiting_requests for d in model.classes.values())
        by_running, by_waiting = running / params.target_running, waiting / params.target_waiting
        seen = {"by_running": by_running, "by_waiting": by_waiting}
        because = "requests that run" if by_running >= by_waiting else "requests that wait"
        wanted = max(by_running, by_waiting)
        return _moved(self._behavior, model, now_s, state, wanted, seen, because)


def _moved(
    behavior: Behavior,
    model: ModelState,
    now_s: float,
    state: Any,
    wanted: float,
    seen: dict[str, float],
    because: str,
) -> Decision:
    current = max(1, total(model.pools))
    wish = current
    if abs(wanted / current - 1) > _TOLERANCE:
        wish = bounded(model.pools, min(wanted, 1e6))
    taken, kept = followed(behavior, state, now_s, current, wish)
    targets = spread(model.pools, bounded(model.pools, taken))
    return Decision(targets, Explanation(seen, because), state=kept)
