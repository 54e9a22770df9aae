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
    """The targets, and what to keep for the next time: needs that a later one reaches in every pool
    would never decide again."""
    earlier = [
        (at, each)
        for at, each in needs
        if at > now_s - down_after_s
        and any(count > need.get(pool, 0) for pool, count in each.items())
    ]
    kept = (*earlier, (now_s, dict(need)))
    targets = dict(need)
    for _, each in earlier:
        for pool, count in each.items():
            if count > targets.get(pool, 0):
                targets[pool] = count
    return dict(sorted(targets.items())), kept
