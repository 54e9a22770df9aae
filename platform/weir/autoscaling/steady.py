"""Hysteresis: up at once, down only when less has been enough for a while.

The target is the highest need of the last ``down_after_s`` seconds. Under constant need it is that
need from the first decision on, so it cannot oscillate; under a need that swings with a period
shorter than the window it stays at the top.
"""

from __future__ import annotations

from collections.abc import Mapping

Needs = tuple[tuple[float, Mapping[str, int]], ...]
"""Times and needs, oldest first: what :func:`steadied` keeps between decisions."""


def steadied(
    needs: Needs, now_s: float, need: Mapping[str, int], down_after_s: float
) -> tuple[Mapping[str, int], Needs]:
    """The targets, and what to keep for the next time."""
    kept = (*((at, n) for at, n in needs if at > now_s - down_after_s), (now_s, dict(need)))
    pools = {pool for _, each in kept for pool in each}
    return {pool: max(each.get(pool, 0) for _, each in kept) for pool in sorted(pools)}, kept
