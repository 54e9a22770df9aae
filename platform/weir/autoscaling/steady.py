"""Hysteresis: up at once, down only when less has been enough for a while.

The target is the dearest need of the last ``down_after_s`` seconds; an older one counts less and
less, and nothing once ``fade_s`` more are over. Under constant need it is that need from the first
decision on, or comes down to it once, so it cannot oscillate; under a need that swings with a
period shorter than ``down_after_s`` it stays at the top.

Pools of a group can do each other's work, so the need that costs most in the whole group decides
for all of them. To hold the highest of each pool by itself would hold more than was ever needed
when one kind of replicas takes the place of another.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

Needs = tuple[tuple[float, Mapping[str, int]], ...]
"""Times and needs, oldest first: what :func:`steadied` keeps between decisions."""


def steadied(
    needs: Needs,
    now_s: float,
    need: Mapping[str, int],
    down_after_s: float,
    fade_s: float = 0.0,
    groups: Sequence[Mapping[str, float]] | None = None,
) -> tuple[Mapping[str, int], Needs]:
    """The targets, and what to keep for the next time: needs that a later one reaches in every
    group would never decide again. ``groups``: pools that can do each other's work, with what a
    replica of each costs; without them each pool is held by itself."""
    groups = [{pool: 1.0} for pool in need] if groups is None else groups
    earlier = [
        (at, each)
        for at, each in needs
        if at > now_s - down_after_s - fade_s
        and any(_usd(each, group) > _usd(need, group) for group in groups)
    ]
    kept = (*earlier, (now_s, dict(need)))
    targets = dict(need)
    for group in groups:
        weight, dearest, most = 1.0, need, _usd(need, group)
        for at, each in earlier:
            counts = _counts(now_s - at, down_after_s, fade_s)
            if counts * _usd(each, group) > most:
                weight, dearest, most = counts, each, counts * _usd(each, group)
        targets |= {pool: math.ceil(weight * dearest.get(pool, 0) - 1e-9) for pool in group}
    return dict(sorted(targets.items())), kept


def _counts(age_s: float, down_after_s: float, fade_s: float) -> float:
    """How much a need of that age counts, in [0, 1]."""
    if age_s < down_after_s:
        return 1.0
    return max(0.0, 1 - (age_s - down_after_s) / fade_s) if fade_s else 0.0


def _usd(need: Mapping[str, int], group: Mapping[str, float]) -> float:
    return sum(usd * need.get(pool, 0) for pool, usd in group.items())
