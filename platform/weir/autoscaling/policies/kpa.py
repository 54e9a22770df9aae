"""Knative's pod autoscaler: mean concurrency of a minute, and of six seconds in a panic.

After knative/serving, pkg/autoscaler/scaling (stable window 60 s, panic window a tenth of it,
panic from twice what is there on; in a panic it never scales down; at most a thousandfold up and
halved down in one step).
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
class KpaParams:
    """``target``: concurrency of a replica, of which ``utilization`` is aimed at."""

    target: Annotated[float, Field(gt=0)] = 16.0
    utilization: Annotated[float, Field(gt=0, le=1)] = 0.7
    stable_window_s: Annotated[float, Field(gt=0)] = 60.0
    panic_window_s: Annotated[float, Field(gt=0)] = 6.0
    panic_threshold: Annotated[float, Field(gt=1)] = 2.0
    scale_down_delay_s: Annotated[float, Field(ge=0)] = 0.0


@register("kpa", KpaParams)
class Kpa:
    """Worth: the usual rule of serverless platforms; rows of ``weir bench autoscale`` compare."""

    def __init__(self, params: KpaParams) -> None:
        self._params = params

    def decide(self, model: ModelState, now_s: float, state: Any) -> Decision:
        params, current = self._params, max(1, total(model.pools))
        before, panic_s, peak = state or ((), None, 0)
        ongoing = model.ongoing_requests
        # Older counts are kept as long as none since has reached them.
        seen = (
            *(
                (at, count)
                for at, count in before
                if at > now_s - params.stable_window_s
                or (at > now_s - params.scale_down_delay_s and count > ongoing)
            ),
            (now_s, ongoing),
        )
        each = params.target * params.utilization
        stable = _mean(seen, now_s - params.stable_window_s) / each
        panic = _mean(seen, now_s - params.panic_window_s) / each
        ready = max(1, sum(pool.ready for pool in model.pools))
        if panic / ready >= params.panic_threshold:
            panic_s = now_s
        elif panic_s is not None and now_s - panic_s > params.stable_window_s:
            panic_s, peak = None, 0
        wanted = stable
        if panic_s is not None:
            peak = max(peak, current, math.ceil(panic))
            wanted = max(peak, stable)
        elif params.scale_down_delay_s:
            wanted = max(stable, *(count / each for _, count in seen))
        wanted = min(max(wanted, current / 2), current * 1000.0)
        told = {"stable": stable, "panic": panic}
        because = "panic" if panic_s is not None else "mean of the stable window"
        targets = spread(model.pools, bounded(model.pools, wanted))
        return Decision(targets, Explanation(told, because), state=(seen, panic_s, peak))


def _mean(seen: tuple[tuple[float, int], ...], since_s: float) -> float:
    counts = [count for at, count in seen if at > since_s]
    return sum(counts) / len(counts) if counts else float(seen[-1][1])
