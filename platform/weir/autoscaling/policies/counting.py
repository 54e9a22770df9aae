"""What the policies share that ask for a number of replicas of a model, whatever they are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from weir.autoscaling.report import PoolState


def spread(pools: Sequence[PoolState], replicas: int) -> Mapping[str, int]:
    """So many replicas in all, pools in their order: each is filled before the next is begun, as
    where somebody who does not know of prices or markets lists them."""
    left, targets = replicas, {}
    for pool in pools:
        targets[pool.name] = pool.least
        left -= pool.least
    for pool in pools:
        more = max(0, min(left, pool.most - pool.least))
        targets[pool.name] += more
        left -= more
    return targets


def total(pools: Sequence[PoolState]) -> int:
    """Replicas that serve or soon will."""
    return sum(pool.current for pool in pools)


def bounded(pools: Sequence[PoolState], replicas: float) -> int:
    """Rounded up, within what the pools may have together, and at least one."""
    least, most = sum(p.least for p in pools), sum(p.most for p in pools)
    return max(least, 1, min(most, math.ceil(replicas - 1e-9)))
