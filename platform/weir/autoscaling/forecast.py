"""Demand ahead: what it became a season ago, scaled to what it is now, and how wrong that has been.

What is foretold is the highest demand until the horizon, because replicas that were not asked for
in time are missed by the peak, not by the mean. With less than a season of history it is the
present. The margin is learned: the same forecast is made for earlier times of the history, and the
upper quantile of what came over what was foretold is how much more is to be ready. Calm hours need
little, and hours in which tenants come and go need more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from weir.autoscaling.report import Sample

#: A season's growth is believed within these bounds.
_GROWTH = (0.5, 3.0)


@dataclass(frozen=True, slots=True)
class Forecast:
    """The highest until the horizon, in tokens per second. ``upper``: factor on both that was
    exceeded in the share of earlier forecasts that the caller allows. ``error``: median absolute
    error as a share; None without a history to judge by."""

    computed_tokens_per_s: float
    output_tokens_per_s: float
    upper: float = 1.0
    error: float | None = None


def foretell(
    history: Sequence[Sample], horizon_s: float, season_s: float, exceeded: float, checked_s: float
) -> Forecast:
    """``history``: oldest first, equally spaced, the present last. ``season_s``: 0 for none.
    ``exceeded``: the share of forecasts, in (0, 1), that may turn out too low. ``checked_s``: so
    far back forecasts are checked."""
    if len(history) < 2:
        last = history[-1] if history else Sample(0.0, 0.0, 0.0)
        return Forecast(last.computed_tokens_per_s, last.output_tokens_per_s)
    spacing_s = (history[-1].at_s - history[0].at_s) / (len(history) - 1)
    ahead = max(1, round(horizon_s / spacing_s))
    season = round(season_s / spacing_s) if season_s else 0
    if not season:  # nothing older than what is checked matters
        history = history[-(max(1, round(checked_s / spacing_s)) + ahead + 1) :]
    computed = np.array([sample.computed_tokens_per_s for sample in history])
    output = np.array([sample.output_tokens_per_s for sample in history])
    work = computed / max(computed.mean(), 1e-9) + output / max(output.mean(), 1e-9)
    growth = _growth(work, ahead, season)
    ratios = _checks(work, growth, ahead, max(1, round(checked_s / spacing_s)))
    now = (computed[-1] * growth[-1], output[-1] * growth[-1])
    if not len(ratios):
        return Forecast(*now)
    upper = float(np.quantile(ratios, 1 - exceeded, method="higher"))
    error = float(np.median(np.abs(ratios - 1)))
    return Forecast(*now, max(1.0, upper), error)


def _growth(work: np.ndarray, ahead: int, season: int) -> np.ndarray:
    """Of each time, the highest of the following times a season before over that time's value."""
    growth = np.ones(len(work))
    if not season or len(work) <= season:
        return growth
    peaks = _highest_after(work, ahead)
    then = np.arange(season, len(work)) - season
    known = np.maximum(work[then], 1e-9)
    growth[season:] = np.clip(np.maximum(work[then], peaks[then]) / known, *_GROWTH)
    return growth


def _highest_after(values: np.ndarray, ahead: int) -> np.ndarray:
    """Of each time, the highest of the next ``ahead`` values, as far as there are some."""
    padded = np.concatenate([values[1:], np.full(ahead, -np.inf)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, ahead)[: len(values)]
    highest: np.ndarray = windows.max(axis=1)
    return highest


def _checks(work: np.ndarray, growth: np.ndarray, ahead: int, most: int) -> np.ndarray:
    """What came over what would have been foretold, for the last ``most`` such times."""
    last = len(work) - ahead
    first = max(0, last - most)
    if last <= first:
        return np.array([])
    told = np.maximum(work[first:last] * growth[first:last], 1e-9)
    ratios: np.ndarray = _highest_after(work, ahead)[first:last] / told
    return ratios
