"""Look-ups: from the cache, from one that is under way already, or from the store.

Nothing here waits longer than the caller's budget, and nothing raises because of the store: what
could not be read is a row of defaults that says why.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import hiredis

from features.online.cache import CacheSettings, RowCache
from features.online.connection import encode
from features.online.link import StoreLink
from features.online.service import FeatureRow, ServicePlan
from features.online.values import GarbageError

Source = Literal["store", "shared", "cache", "none"]

_LATE_S = 0.001
"""How late a timer must be for the loop to have been held up, and the extra time to read what has
come meanwhile: an event loop may fire timers before it reads sockets (libuv does)."""
_ELSEWHERE = ("MOVED ", "ASK ", "TRYAGAIN", "CLUSTERDOWN")
"""What a well node of a cluster says of keys that it cannot answer for."""


@dataclass(slots=True)
class ReadCounts:
    """Look-ups by where their answer came from."""

    store: int = 0
    shared: int = 0
    cache: int = 0
    none: int = 0


class Lookup:
    """One caller's look-up; await :meth:`row`. Leaving it alone is harmless."""

    __slots__ = ("_answer", "_deadline_s", "_done", "_plan", "_read", "_timer", "source")

    def __init__(self, plan: ServicePlan, source: Source, done: FeatureRow | None = None) -> None:
        self._plan = plan
        self._read: _Read | None = None
        self.source: Source = source
        self._done = done
        self._answer: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._deadline_s = 0.0

    async def row(self) -> FeatureRow:
        """The row: at the latest when the budget is over, then with outcome ``timeout``."""
        if self._done is None:
            assert self._answer is not None
            await self._answer
        assert self._done is not None
        return self._done

    @property
    def done(self) -> bool:
        """Whether :meth:`row` will not wait."""
        return self._done is not None


class Store(Protocol):
    """A server's link, or a cluster's links."""

    def route(self, key: bytes) -> StoreLink:
        """The link that the key is read over."""
        ...

    def moved(self, reply: str) -> StoreLink | None:
        """The link to the node to which an error reply sends the reader, if it sends it."""
        ...


@dataclass(eq=False, slots=True)
class _Read:
    """One command under way, who waits for it, and where it was sent."""

    plan: ServicePlan
    key: bytes
    link: StoreLink
    sent_on: bool = False
    waiters: list[Lookup] = field(default_factory=list)


class FeatureReader:
    """Reads features of one store. ``clock`` is monotonic, ``wall`` seconds since the epoch."""

    def __init__(
        self,
        store: Store,
        cache: CacheSettings | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._cache = RowCache(cache or CacheSettings())
        self._clock = clock
        self._wall = wall
        self._reads: dict[tuple[ServicePlan, bytes], _Read] = {}
        self.counts = ReadCounts()

    @property
    def under_way(self) -> int:
        """Reads that the store has not answered yet."""
        return len(self._reads)

    def begin(self, plan: ServicePlan, key: bytes, budget_s: float) -> Lookup:
        """Start to look an entity up; ``key`` is its hash's in Redis (``features.join_keys``).

        Look-ups that begin in the same turn of the event loop leave for the store together.
        """
        now_s = self._clock()
        row = self._cache.get((plan, key), now_s, self._wall())
        if row is not None:
            self.counts.cache += 1
            return Lookup(plan, "cache", row)
        read = self._reads.get((plan, key))
        if read is not None:
            self.counts.shared += 1
            return self._wait(read, "shared", now_s + budget_s)
        read = _Read(plan, key, self._store.route(key))
        if not self._send(read):
            self.counts.none += 1
            return Lookup(plan, "none", plan.without("down"))
        self._reads[plan, key] = read
        self.counts.store += 1
        return self._wait(read, "store", now_s + budget_s)

    def _send(self, read: _Read) -> bool:
        head, tail = read.plan.command
        command = b"%b$%d\r\n%b\r\n%b" % (head, len(read.key), read.key, tail)
        return read.link.send(command, lambda reply: self._answered(read, reply))

    def _send_on(self, read: _Read, reply: hiredis.ReplyError) -> bool:
        """Once, where a cluster says that another node has the key."""
        text = str(reply)
        link = None if read.sent_on else self._store.moved(text)
        if link is None:
            return False
        read.link.answered()
        read.link, read.sent_on = link, True
        if text.startswith("ASK ") and not link.send(encode(b"ASKING"), lambda _: None):
            return False
        return self._send(read)

    def _wait(self, read: _Read, source: Source, deadline_s: float) -> Lookup:
        loop = asyncio.get_running_loop()
        lookup = Lookup(read.plan, source)
        lookup._read = read
        lookup._answer = loop.create_future()
        lookup._deadline_s = deadline_s
        lookup._timer = loop.call_later(deadline_s - self._clock(), self._expire, lookup, False)
        read.waiters.append(lookup)
        return lookup

    def _answered(self, read: _Read, reply: Any) -> None:
        if isinstance(reply, hiredis.ReplyError) and self._send_on(read, reply):
            return
        self._reads.pop((read.plan, read.key), None)
        row = self._row(read, reply)
        for lookup in read.waiters:
            if lookup._timer is not None:
                lookup._timer.cancel()
            _finish(lookup, row)

    def _row(self, read: _Read, reply: Any) -> FeatureRow:
        plan = read.plan
        if reply is None:
            return plan.without("down")
        if isinstance(reply, hiredis.ReplyError):
            if str(reply).startswith("WRONGTYPE"):  # the key is there, but no hash of Feast's
                read.link.answered()
                return plan.without("wrong_type")
            if str(reply).startswith(_ELSEWHERE):
                read.link.answered()
                return plan.without("down")
            read.link.distrust(f"the store says {reply}")
            return plan.without("down")
        try:
            row = plan.read(reply, self._wall())
        except (GarbageError, TypeError) as error:
            read.link.distrust(f"the store's reply is not what was asked for: {error}")
            return plan.without("down")
        read.link.answered()
        self._cache.put((plan, read.key), row, self._clock())
        return row

    def _expire(self, lookup: Lookup, extended: bool) -> None:
        if lookup._answer is None or lookup._answer.done():
            return
        if not extended and self._clock() - lookup._deadline_s > _LATE_S:
            loop = asyncio.get_running_loop()
            lookup._timer = loop.call_later(_LATE_S, self._expire, lookup, True)
            return
        _finish(lookup, lookup._plan.without("timeout"))
        if lookup._read is not None:
            lookup._read.link.unanswered()


def _finish(lookup: Lookup, row: FeatureRow) -> None:
    if lookup._answer is not None and not lookup._answer.done():
        lookup._done = row
        lookup._answer.set_result(None)
