"""Kubernetes' horizontal pod autoscaler, the part that KEDA's users rely on: how fast it moves.

After kubernetes, HorizontalPodAutoscaler ``behavior``: a wish is followed up to the lowest wish of
the up window, down to the highest wish of the down window, and by no more in a period than the most
generous of the rules allows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

Kept = tuple[tuple[tuple[float, int], ...], tuple[tuple[float, int], ...]]
"""Wishes, and counts that were asked for, with their times."""


@dataclass(frozen=True, slots=True)
class Behavior:
    """Windows and limits. ``up_share``, ``up_pods``: the larger is allowed in ``up_period_s``;
    likewise for down."""

    up_window_s: float = 0.0
    up_share: float = 1.0
    up_pods: int = 4
    up_period_s: float = 15.0
    down_window_s: float = 300.0
    down_share: float = 1.0
    down_pods: int = 0
    down_period_s: float = 15.0


def followed(
    behavior: Behavior, kept: Kept | None, now_s: float, current: int, wish: int
) -> tuple[int, Kept]:
    """How many are asked for, and what to keep for the next time."""
    wishes, counts = kept or ((), ())
    # A wish that a later one reaches matters only as long as it may be the lowest.
    wishes = (
        *(
            (at, each)
            for at, each in wishes
            if (at > now_s - behavior.down_window_s and each > wish)
            or at >= now_s - behavior.up_window_s
        ),
        (now_s, wish),
    )
    up = min(w for at, w in wishes if at >= now_s - behavior.up_window_s)
    down = max(w for at, w in wishes if at >= now_s - behavior.down_window_s)
    taken = current
    if up > current:
        before = _lowest(counts, now_s - behavior.up_period_s, current)
        most = max(math.ceil(before * (1 + behavior.up_share)), before + behavior.up_pods)
        taken = max(current, min(up, most))
    elif down < current:
        before = _highest(counts, now_s - behavior.down_period_s, current)
        least = min(math.floor(before * (1 - behavior.down_share)), before - behavior.down_pods)
        taken = min(current, max(down, least))
    period_s = max(behavior.up_period_s, behavior.down_period_s)
    counts = (*(c for c in counts if c[0] > now_s - period_s), (now_s, taken))
    return taken, (wishes, counts)


def _lowest(counts: tuple[tuple[float, int], ...], since_s: float, current: int) -> int:
    return min([current, *(count for at, count in counts if at > since_s)])


def _highest(counts: tuple[tuple[float, int], ...], since_s: float, current: int) -> int:
    return max([current, *(count for at, count in counts if at > since_s)])
