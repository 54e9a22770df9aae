"""The few statistics that benches share."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

Item = TypeVar("Item")


def median(values: Iterable[float]) -> float | None:
    """The median, None of nothing."""
    known = list(values)
    return statistics.median(known) if known else None


def percentile(values: Iterable[float], percent: float) -> float | None:
    """Percentile 0..100, linear between the nearest ranks, None of nothing."""
    if not 0 <= percent <= 100:
        raise ValueError(f"a percentile lies in 0..100, not at {percent}")
    known = sorted(values)
    if not known:
        return None
    rank = (len(known) - 1) * percent / 100
    low = math.floor(rank)
    high = min(low + 1, len(known) - 1)
    return known[low] + (known[high] - known[low]) * (rank - low)


def interleave(systems: Sequence[Item], rounds: int) -> Iterator[tuple[int, Item]]:
    """(round, system) in the order A B C, B C A, C A B: each system stands in each place as
    often as the rounds allow, so that a machine that slows down slows all alike."""
    for number in range(rounds):
        start = number % len(systems) if systems else 0
        for system in (*systems[start:], *systems[:start]):
            yield number, system


def round_figures(value: Any, digits: int = 4) -> Any:
    """Floats to significant digits (whole parts kept), containers item by item.

    A float that is no number becomes None: JSON has no other word for it.
    """
    if isinstance(value, dict):
        return {key: round_figures(item, digits) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [round_figures(item, digits) for item in value]
    if not isinstance(value, float):
        return value
    if not math.isfinite(value):
        return None
    if value == 0:
        return 0.0
    places = digits - 1 - math.floor(math.log10(abs(value)))
    return round(value, max(0, places))
