"""Ray Serve's own policy: ongoing requests over a target for each replica.

After ray/serve/autoscaling_policy.py (2.60): what is in flight, a mean over ``look_back_s``, over
the target is what is wanted; up and down are smoothed by a factor each, and done when the same
direction was wanted for the whole delay, whereupon the delay begins anew. Where bytes are bound
late, what is in flight is capped at the replicas' places, and the queue in front is not seen:
``sees_queues`` is what Serve would have with queues of its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from weir.autoscaling.policies.counting import bounded, spread, total
from weir.autoscaling.registry import register
from weir.autoscaling.report import Decision, Explanation, ModelState


@dataclass(frozen=True, slots=True)
class RayServeParams:
    """Defaults as Serve's, but for the target, which depends on the engine."""

    target_ongoing_requests: Annotated[float, Field(gt=0)] = 16.0
    upscaling_factor: Annotated[float, Field(gt=0)] = 1.0
    downscaling_factor: Annotated[float, Field(gt=0)] = 1.0
    upscale_delay_s: Annotated[float, Field(ge=0)] = 30.0
    downscale_delay_s: Annotated[float, Field(ge=0)] = 600.0
    look_back_s: Annotated[float, Field(ge=0)] = 30.0
    sees_queues: bool = True


@register("ray-serve", RayServeParams)
class RayServe:
    """Worth: the rule that Serve users have; rows of ``weir bench autoscale`` compare."""

    def __init__(self, params: RayServeParams) -> None:
        self._params = params

    def decide(self, model: ModelState, now_s: float, state: Any) -> Decision:
        params, current = self._params, max(1, total(model.pools))
        running = sum(pool.running_requests for pool in model.pools)
        now = model.ongoing_requests if params.sees_queues else running
        counts, direction, since_s = state or ((), 0, now_s)
        counts = (*(c for c in counts if c[0] > now_s - params.look_back_s), (now_s, now))
        ongoing = sum(count for _, count in counts) / len(counts)
        wanted = bounded(model.pools, self._smoothed(ongoing, current))
        if _sign(wanted - current) != direction:
            direction, since_s = _sign(wanted - current), now_s
        delay_s = params.upscale_delay_s if direction > 0 else params.downscale_delay_s
        taken = current
        if direction and now_s - since_s >= delay_s:
            taken, direction = wanted, 0
        because = f"{ongoing:.0f} in flight over {current} replicas, {wanted} wanted"
        seen = {"ongoing": ongoing, "wanted": float(wanted)}
        kept = (counts, direction, since_s)
        return Decision(spread(model.pools, taken), Explanation(seen, because), state=kept)

    def _smoothed(self, ongoing: float, current: int) -> float:
        """Part of the way to what is wanted, and at least one replica less when less is."""
        params = self._params
        wanted = ongoing / params.target_ongoing_requests
        factor = params.upscaling_factor if wanted > current else params.downscaling_factor
        scaled = math.ceil(current + factor * (wanted - current) - 1e-9)
        if math.ceil(wanted - 1e-9) < current and scaled == current:
            return current - 1
        return scaled


def _sign(change: int) -> int:
    return (change > 0) - (change < 0)
