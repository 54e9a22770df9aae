"""When is silence a failure? Learned from what the silent one did before."""

from __future__ import annotations


class Pulse:
    """Follows the gaps between signs of life, and says when a gap is too long.

    The bound is ``factor`` times the longest gap seen lately, at least ``least_s`` seconds. Lately:
    the longest gap is forgotten with a half-life of ``half_life_beats`` signs, so that one long
    start does not make the bound long for ever. Times are on the caller's clock.
    """

    __slots__ = ("_factor", "_keep", "_last_s", "_least_s", "_longest_s")

    def __init__(
        self, now_s: float, least_s: float, factor: float = 5.0, half_life_beats: int = 200
    ) -> None:
        self._least_s = least_s
        self._factor = factor
        self._keep = 0.5 ** (1.0 / half_life_beats)
        self._longest_s = 0.0
        self._last_s = now_s

    @property
    def bound_s(self) -> float:
        """A gap longer than this is a failure."""
        return max(self._least_s, self._factor * self._longest_s)

    def beat(self, now_s: float) -> None:
        """A sign of life; the gap before it is learned."""
        self._longest_s = max(self._longest_s * self._keep, now_s - self._last_s)
        self._last_s = now_s

    def rest(self, now_s: float) -> None:
        """Nothing was expected until now: the time before counts as no gap."""
        self._last_s = now_s

    def silence_s(self, now_s: float) -> float:
        """The present gap."""
        return now_s - self._last_s

    def overdue(self, now_s: float) -> bool:
        """Whether the present gap is too long."""
        return self.silence_s(now_s) > self.bound_s
