"""Members that are to be left out of all choices until a time."""

from __future__ import annotations

import math
from collections.abc import Callable


class Avoided:
    """``clock``: monotonic seconds. False where nobody is left out."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._until_s: dict[str, float] = {}

    def __bool__(self) -> bool:
        return bool(self._until_s)

    def until(self, replica_id: str, until_s: float) -> bool:
        """Leave it out until then (infinity: until it is told otherwise); a time that has passed
        takes that back. Whether there was something to do."""
        if until_s > self._clock():
            self._until_s[replica_id] = until_s
            return True
        return self._until_s.pop(replica_id, None) is not None

    def forget(self, replica_id: str) -> None:
        """It is a member no longer."""
        self._until_s.pop(replica_id, None)

    def now(self) -> frozenset[str]:
        """Who is left out now."""
        if not self._until_s:
            return frozenset()
        now_s = self._clock()
        over = [rid for rid, until_s in self._until_s.items() if until_s <= now_s]
        for replica_id in over:
            del self._until_s[replica_id]
        return frozenset(self._until_s)

    def next_return_s(self) -> float | None:
        """When the next one may be chosen again; None if none will be by itself."""
        now_s = self._clock()
        times = [until_s for until_s in self._until_s.values() if now_s < until_s < math.inf]
        return min(times, default=None)
