"""Simulated time: a heap of things to do."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any


class EventQueue:
    """Runs callbacks in order of time, ties in order of scheduling. Single thread."""

    __slots__ = ("_count", "_heap", "now_s")

    def __init__(self) -> None:
        self.now_s = 0.0
        self._heap: list[tuple[float, int, Callable[..., None], Any]] = []
        self._count = 0

    def at(self, time_s: float, call: Callable[[Any], None], argument: Any = None) -> None:
        """Call ``call(argument)`` at ``time_s`` (not before now)."""
        self._count += 1
        heapq.heappush(self._heap, (max(time_s, self.now_s), self._count, call, argument))

    def after(self, delay_s: float, call: Callable[[Any], None], argument: Any = None) -> None:
        """Call ``call(argument)`` in ``delay_s`` seconds."""
        self.at(self.now_s + delay_s, call, argument)

    def run(self, until_s: float = float("inf")) -> None:
        """Work the heap off, up to and including ``until_s``."""
        heap = self._heap
        pop = heapq.heappop
        while heap and heap[0][0] <= until_s:
            self.now_s, _, call, argument = pop(heap)
            call(argument)

    def __len__(self) -> int:
        return len(self._heap)
