"""How many lines are under way at a time. Pure: no I/O, no clock.

A line waits until admission has room for it, and flows from its first output on. As many lines may
wait as flow, and a few more: a platform that takes lines quickly is sent more of them, one that is
busy with urgent requests holds few, and there are never more than ``most``.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress

#: So many may wait for their first output while none flows.
FEW = 8


class Place:
    """A line's place in the window, until it is left. Leaving twice is leaving once."""

    def __init__(self, window: Window) -> None:
        self._window = window
        self._held = True
        self._flows = False

    def flow(self) -> None:
        """The first output is here."""
        if self._held and not self._flows:
            self._flows = True
            self._window.moved(waiting=-1, flowing=1)

    def leave(self) -> None:
        """The line has ended, or waits for something else."""
        if self._held:
            self._held = False
            if self._flows:
                self._window.moved(waiting=0, flowing=-1)
            else:
                self._window.moved(waiting=-1, flowing=0)


class Window:
    """``most``: places in all. Whoever waits for one is served in turn."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.waiting = 0
        self.flowing = 0
        self._queue: deque[asyncio.Future[None]] = deque()

    @property
    def held(self) -> int:
        """Places that are held."""
        return self.waiting + self.flowing

    @property
    def room(self) -> int:
        """Places that may be taken now."""
        patience = max(FEW, self.flowing) - self.waiting
        return max(0, min(patience, self._most - self.held))

    @property
    def wanted(self) -> int:
        """Lines that wait for a place."""
        return len(self._queue)

    async def enter(self) -> Place:
        """A place, when there is one."""
        if self._queue or not self.room:
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._queue.append(turn)
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self.moved(waiting=-1, flowing=0)
                else:
                    with suppress(ValueError):  # it may have been passed over already
                        self._queue.remove(turn)
                raise
        else:
            self.waiting += 1
        return Place(self)

    def moved(self, waiting: int, flowing: int) -> None:
        """Count, and let in who waits. Called by places."""
        self.waiting += waiting
        self.flowing += flowing
        while self._queue and self.room:
            turn = self._queue.popleft()
            if not turn.done():
                self.waiting += 1
                turn.set_result(None)
