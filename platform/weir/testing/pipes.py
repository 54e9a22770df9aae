"""One direction of a simulated connection: in order, at most once, and as slow as told.

What TCP and the kernels on both sides do, as far as a program can tell: a message travels for a
while, arrives behind the one before it, and waits to be read; a sender waits while too much is
unread; an end arrives behind everything that was sent, a reset at once.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

#: Of no process: what the network does goes on while sender and receiver are frozen.
NETWORK = contextvars.Context()


class PipeClosedError(OSError):
    """Nothing can be sent or received any more. An OSError, as ASGI asks of ``send``."""


@dataclass(frozen=True, slots=True)
class Accept:
    """The first thing that a server sends."""


@dataclass(frozen=True, slots=True)
class End:
    """The last thing that travels through a pipe."""

    reason: str


Item = bytes | Accept | End


@dataclass(slots=True)
class Traffic:
    """Messages, counted: each one sent is delivered (read by the receiver), dropped, or neither
    yet."""

    sent: int = 0
    delivered: int = 0
    dropped: int = 0


class Pipe:
    """Mutable. ``delay`` gives each message's travel time, in seconds."""

    def __init__(self, delay: Callable[[], float], window_bytes: int, traffic: Traffic) -> None:
        self._loop = asyncio.get_running_loop()
        self._delay = delay
        self._window_bytes = window_bytes
        self._traffic = traffic
        self._under_way: deque[tuple[float, Item]] = deque()
        self._inbox: deque[Item] = deque()
        self._unread_bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        self._arrived = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._sealed = ""  # why nothing more can be sent
        self._reset = ""  # why nothing more arrives
        self._void = False
        self._lost = False
        self._then: Callable[[], None] | None = None
        self.stalled = False

    async def send(self, item: Item) -> None:
        """Hand a message over; waits while more than the window is unread.

        Raises:
            PipeClosedError: the pipe has ended or was reset.
        """
        while not (self._sealed or self._void) and self._unread_bytes >= self._window_bytes:
            self._room.clear()
            await self._room.wait()
        if self._sealed:
            raise PipeClosedError(self._sealed)
        if self._void:
            self._traffic.sent += 1
            self._traffic.dropped += 1
        else:
            self._put(item)

    async def receive(self) -> Item:
        """The next message.

        Raises:
            PipeClosedError: the pipe has ended, or was reset; what had arrived was read.
        """
        while not self._inbox:
            if self._reset:
                raise PipeClosedError(self._reset)
            self._arrived.clear()
            await self._arrived.wait()
        item = self._inbox[0]
        if isinstance(item, End):
            raise PipeClosedError(item.reason)
        self._inbox.popleft()
        self._unread_bytes -= _size(item)
        self._traffic.delivered += 1
        if self._unread_bytes < self._window_bytes:
            self._room.set()
        return item

    def end(self, reason: str, then: Callable[[], None] | None = None) -> None:
        """Nothing more is sent. The receiver learns it behind what is under way; ``then`` is called
        when the end has arrived."""
        if not self._sealed:
            self._then = then
            if not self._void:
                self._put(End(reason))
            self._sealed = reason
            self._room.set()

    def reset(self, reason: str) -> None:
        """Lose what is under way and tell both sides at once. What has arrived can be read."""
        self._sealed = self._sealed or reason
        self._cut(reason)

    def discard(self, reason: str) -> None:
        """The receiver is gone. The sender does not know: what it sends is dropped."""
        self._void = True
        self._cut(reason)
        self._traffic.dropped += sum(not isinstance(item, End) for item in self._inbox)
        self._inbox.clear()

    def stall(self) -> None:
        """Nothing arrives until :meth:`flow`."""
        self.stalled = True
        self._schedule()

    def flow(self) -> None:
        """What is late arrives now, the rest when it is due."""
        self.stalled = self._lost
        self._schedule()

    def lose(self) -> None:
        """Nothing arrives any more, and nobody is told."""
        self._lost = True
        self.stall()

    def _put(self, item: Item) -> None:
        # Whatever its own time, it waits behind the one before it: only the first is delivered.
        self._under_way.append((self._loop.time() + self._delay(), item))
        self._unread_bytes += _size(item)
        self._traffic.sent += not isinstance(item, End)
        if len(self._under_way) == 1:
            self._schedule()

    def _schedule(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._under_way and not self.stalled:
            at_s = self._under_way[0][0]
            self._timer = self._loop.call_at(at_s, self._deliver, context=NETWORK)

    def _deliver(self) -> None:
        self._timer = None
        while self._under_way and self._under_way[0][0] <= self._loop.time():
            self._inbox.append(self._under_way.popleft()[1])
        self._arrived.set()
        self._schedule()
        if self._then is not None and isinstance(self._inbox[-1], End):
            self._then()

    def _cut(self, reason: str) -> None:
        self._reset = self._reset or reason
        self._traffic.dropped += sum(not isinstance(item, End) for _, item in self._under_way)
        self._under_way.clear()
        self._schedule()
        self._arrived.set()
        self._room.set()


def _size(item: Item) -> int:
    return len(item) if isinstance(item, bytes) else 0
