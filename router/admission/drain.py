"""How fast a class's queue drains, for Retry-After and predicted waits."""

from __future__ import annotations

import math


class DrainMeter:
    """Cost dispatched per second while something waited, exponentially weighted.

    Time in which nothing waits is not counted: it shows the arrival rate, not what the replicas
    can do, and would make the first burst look hopeless.
    """

    __slots__ = ("_cost", "_seconds", "_since_s", "_window_s")

    def __init__(self, window_s: float) -> None:
        self._window_s = window_s
        self._cost = 0.0
        self._seconds = 0.0
        self._since_s: float | None = None

    def start(self, now_s: float) -> None:
        """The queue is no longer empty."""
        self._since_s = now_s

    def served(self, cost: float, now_s: float) -> None:
        """A waiting request of that cost was dispatched."""
        self._advance(now_s)
        self._cost += cost

    def passed(self, cost: float) -> None:
        """A request of that cost was dispatched without waiting: it took no time."""
        self._cost += cost

    def stop(self, now_s: float) -> None:
        """The queue is empty."""
        self._advance(now_s)
        self._since_s = None

    def rate(self, now_s: float) -> float | None:
        """Cost per second; None until a twentieth of the window was seen."""
        self._advance(now_s)
        if self._seconds < 0.05 * self._window_s:
            return None
        return self._cost / self._seconds

    def _advance(self, now_s: float) -> None:
        if self._since_s is None:
            return
        passed = max(0.0, now_s - self._since_s)
        decay = math.exp(-passed / self._window_s)
        self._cost *= decay
        # Integral of the weight over the time passed: the weighted seconds seen.
        self._seconds = self._seconds * decay + self._window_s * (1.0 - decay)
        self._since_s = now_s
