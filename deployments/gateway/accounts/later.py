"""Settling a request when it is known whether it counts, and not at its end."""

from __future__ import annotations

from collections.abc import Callable


class Later:
    """Of one request. A line of a batch counts with its result, which is published a moment after
    its answer, once, however often the line was computed; what a gateway reserved that died before
    that returns to its tenant. The place among concurrent requests is free at the answer's end."""

    def __init__(self) -> None:
        self._kept: list[Callable[[bool], None]] = []

    def keep(self, settle: Callable[[bool], None]) -> None:
        """To be told whether the request counts."""
        self._kept.append(settle)

    def settle(self, counts: bool) -> None:
        """It is known. A second time changes nothing."""
        kept, self._kept = self._kept, []
        for settle in kept:
            settle(counts)
