"""Evidence that grows while data comes in, and may be looked at after every observation.

A test that is evaluated again and again with an ordinary p-value says "worse" sooner or later about
anything. An *e-process* does not: it is the capital of somebody who bets, at fair odds, against the
claim that is tested. If the claim holds, the capital is expected not to grow, and the chance that
it *ever* exceeds ``1 / alpha`` is at most ``alpha`` (Ville's inequality). So it can be read at any
time, and stopping early costs nothing.

The bet is Waudby-Smith's and Ramdas's on a bounded mean ("Estimating means of bounded random
variables by betting", JRSS-B 2024, section 4): with observations ``x`` in ``[low, ...]`` and the
claim that their mean is at most ``bound``, each observation multiplies the capital by
``1 + share * (x - bound)``. What share is best depends on how wrong the claim is, which nobody
knows beforehand; so the capital is spread over a grid of shares, and the evidence is the mean.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

#: Shares of the largest one that cannot lose everything: by factors of two from nearly all of it.
_SHARES = 0.95 * np.power(2.0, -np.arange(12.0))


class Evidence:
    """Against the claim that the mean of a stream of numbers, none below ``low``, is at most
    ``bound`` given what came before."""

    def __init__(self, bound: float, low: float) -> None:
        if not low < bound:
            raise ValueError(f"expected a bound above the lowest value {low}, got {bound}")
        self._bound = bound
        self._low = low
        self._shares = _SHARES / (bound - low)
        self._logs = np.zeros(len(_SHARES))

    def observe(self, values: Sequence[float]) -> None:
        """Numbers that came, in their order.

        Raises:
            ValueError: one is below the lowest, or none at all (NaN).
        """
        if not values:
            return
        given = np.asarray(values, dtype=float)
        if not (given >= self._low).all():
            raise ValueError(f"expected numbers from {self._low}, got {given.min()}")
        self._logs += np.log1p(np.outer(self._shares, given - self._bound)).sum(axis=1)

    @property
    def log(self) -> float:
        """The logarithm of the capital: 0 at the beginning, above ``log(1 / alpha)`` when the
        claim is refuted at ``alpha``."""
        most = float(self._logs.max())
        return most + math.log(float(np.exp(self._logs - most).mean()))

    def refutes(self, alpha: float) -> bool:
        """Whether the claim is refuted, with a chance of at most ``alpha`` that this is an error,
        however often it is asked."""
        return self.log >= -math.log(alpha)


class TwoSided:
    """Whether a mean is above or below ``bound``, each with its own evidence. Numbers lie in
    ``[low, high]``; both claims stand as long as nothing is clear."""

    def __init__(self, bound: float, low: float, high: float) -> None:
        self._above = Evidence(bound, low)
        self._below = Evidence(-bound, -high)
        self.count = 0
        self._sum = 0.0

    def observe(self, values: Sequence[float]) -> None:
        """Numbers that came, in their order."""
        self._above.observe(values)
        self._below.observe([-value for value in values])
        self.count += len(values)
        self._sum += sum(values)

    @property
    def mean(self) -> float | None:
        """Of all numbers so far; None before the first."""
        return self._sum / self.count if self.count else None

    @property
    def log_above(self) -> float:
        """Evidence that the mean is above the bound (see :attr:`Evidence.log`)."""
        return self._above.log

    @property
    def log_below(self) -> float:
        """Evidence that it is below."""
        return self._below.log
