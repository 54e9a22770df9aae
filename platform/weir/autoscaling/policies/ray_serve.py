"""Ray Serve's own policy: ongoing requests over a target for each replica.

After ray/serve/autoscaling_policy.py (2.60): the error ratio is what each replica has in flight
over the target; up and down are smoothed by a factor each, and done only when the same was wanted
for the whole delay. Where bytes are bound late, what is in flight is capped at the replicas'
places, and the queue in front is not seen: ``sees_queues`` is what Serve would have with queues of
its own.
"""

from __future__ import annotations

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
    sees_queues: bool = True


@register("ray-serve", RayServeParams)
class RayServe:
    """Worth: the rule that Serve users have; rows of ``weir bench autoscale`` compare."""

    def __init__(self, params: RayServeParams) -> None:
        self._params = params

    def decide(self, model: ModelState, now_s: float, state: Any) -> Decision:
        params, current = self._params, max(1, total(model.pools))
        running = sum(pool.running_requests for pool in model.pools)
        ongoing = model.ongoing_requests if params.sees_queues else running
        ratio = ongoing / current / params.target_ongoing_requests
        factor = params.upscaling_factor if ratio >= 1 else params.downscaling_factor
        wanted = bounded(model.pools, current * (1 + (ratio - 1) * factor))
        since = state if state is not None and _same(state[0], wanted - current) else None
        since_s = since[1] if since else now_s
        delay_s = params.upscale_delay_s if wanted > current else params.downscale_delay_s
        taken = wanted if now_s - since_s >= delay_s else current
        because = f"{ongoing} in flight over {current} replicas, {wanted} wanted"
        seen = {"ongoing": float(ongoing), "wanted": float(wanted)}
        kept = (wanted - current, since_s) if wanted != current else None
        return Decision(spread(model.pools, taken), Explanation(seen, because), state=kept)


def _same(before: int, now: int) -> bool:
    return (before > 0) == (now > 0) and (before < 0) == (now < 0)
