"""When a waiting request's time is up."""

from __future__ import annotations

import heapq
import math

from router.admission.outcomes import Refusal
from router.admission.waiting import Item, State


class Timers:
    """Waiting requests by the times at which something happens to them, earliest first."""

    __slots__ = ("_heap", "_live_at_least", "_sets")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Item, Refusal]] = []
        self._live_at_least = 64
        self._sets = 0

    def __len__(self) -> int:
        """Timers held, those of requests that wait no more included."""
        return len(self._heap)

    def set(self, at_s: float, item: Item, refusal: Refusal) -> None:
        """At ``at_s`` that refusal applies to ``item`` if it still waits; infinity: never."""
        if at_s == math.inf:
            return
        self._sets += 1
        heapq.heappush(self._heap, (at_s, self._sets, item, refusal))
        if len(self._heap) > 2 * self._live_at_least:
            self._heap = [t for t in self._heap if t[2].state is State.WAITING]
            heapq.heapify(self._heap)
            self._live_at_least = max(64, len(self._heap))

    def next_s(self) -> float | None:
        """When the next one is due; None if there is none."""
        heap = self._heap
        while heap and heap[0][2].state is not State.WAITING:
            heapq.heappop(heap)
        return heap[0][0] if heap else None

    def pop_due(self, now_s: float) -> tuple[Item, Refusal] | None:
        """Take out the earliest one that is due."""
        at_s = self.next_s()
        if at_s is None or at_s > now_s:
            return None
        _, _, item, refusal = heapq.heappop(self._heap)
        return item, refusal
