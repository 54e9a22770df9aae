"""Look-ups: from the cache, from one that is under way already, or from the store.

Nothing here waits longer than the caller's budget, and nothing raises because of the store: what
could not be read is a row of defaults that says why.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import hiredis

from features.online.cache import CacheSettings, RowCache
from features.online.format import hash_key
from features.online.link import StoreLink
from features.online.service import FeatureRow, ServicePlan
from features.online.values import GarbageError

Source = Literal["store", "shared", "cache", "none"]

_LATE_S = 0.001
"""How late a timer must be for the loop to have been held up, and the extra time to read what has
come meanwhile: an event loop may fire timers before it reads sockets (libuv does)."""


@dataclass(slots=True)
class ReadCounts:
    """Look-ups by where their answer came from."""

    store: int = 0
    shared: int = 0
    cache: int = 0
    none: int = 0


class Lookup:
    """One caller's look-up; await :meth:`row`. Leaving it alone is harmless."""

    __slots__ = ("_answer", "_deadline_s", "_done", "_plan", "_timer", "source")

    def __init__(self, plan: ServicePlan, source: Source, done: FeatureRow | None = None) -> None:
        self._plan = plan
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


@dataclass(eq=False, slots=True)
class _Read:
    """One command under way, and who waits for it."""

    plan: ServicePlan
    entity: str
    waiters: list[Lookup] = field(default_factory=list)


class FeatureReader:
    """Reads features of one store. ``clock`` is monotonic, ``wall`` seconds since the epoch."""

    def __init__(
        self,
        link: StoreLink,
        cache: CacheSettings | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._link = link
        self._cache = RowCache(cache or CacheSettings())
        self._clock = clock
        self._wall = wall
        self._reads: dict[tuple[ServicePlan, str], _Read] = {}
        self.counts = ReadCounts()

    @property
    def under_way(self) -> int:
        """Reads that the store has not answered yet."""
        return len(self._reads)

    def begin(self, plan: ServicePlan, entity: str, budget_s: float) -> Lookup:
        """Start to look ``entity`` up (its key as ``features.keys`` makes it).

        Look-ups that begin in the same turn of the event loop leave for the store together.
        """
        now_s = self._clock()
        row = self._cache.get((plan, entity), now_s, self._wall())
        if row is not None:
            self.counts.cache += 1
            return Lookup(plan, "cache", row)
        read = self._reads.get((plan, entity))
        if read is not None:
            self.counts.shared += 1
            return self._wait(read, "shared", now_s + budget_s)
        read = _Read(plan, entity)
        if not self._send(read):
            self.counts.none += 1
            return Lookup(plan, "none", plan.without("down"))
        self._reads[plan, entity] = read
        self.counts.store += 1
        return self._wait(read, "store", now_s + budget_s)

    def _send(self, read: _Read) -> bool:
        key = hash_key(read.entity)
        head, tail = read.plan.command
        command = b"%b$%d\r\n%b\r\n%b" % (head, len(key), key, tail)
        return self._link.send(command, lambda reply: self._answered(read, reply))

    def _wait(self, read: _Read, source: Source, deadline_s: float) -> Lookup:
        loop = asyncio.get_running_loop()
        lookup = Lookup(read.plan, source)
        lookup._answer = loop.create_future()
        lookup._deadline_s = deadline_s
        lookup._timer = loop.call_later(deadline_s - self._clock(), self._expire, lookup, False)
        read.waiters.append(lookup)
        return lookup

    def _answered(self, read: _Read, reply: Any) -> None:
        self._reads.pop((read.plan, read.entity), None)
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
                self._link.answered()
                return plan.without("wrong_type")
            self._link.distrust(f"the store says {reply}")
            return plan.without("down")
        try:
            row = plan.read(reply, self._wall())
        except (GarbageError, TypeError) as error:
            self._link.distrust(f"the store's reply is not what was asked for: {error}")
            return plan.without("down")
        self._link.answered()
        self._cache.put((plan, read.entity), row, self._clock())
        return row

    def _expire(self, lookup: Lookup, extended: bool) -> None:
        if lookup._answer is None or lookup._answer.done():
            return
        if not extended and self._clock() - lookup._deadline_s > _LATE_S:
            loop = asyncio.get_running_loop()
            lookup._timer = loop.call_later(_LATE_S, self._expire, lookup, True)
            return
        _finish(lookup, lookup._plan.without("timeout"))
        self._link.unanswered()


def _finish(lookup: Lookup, row: FeatureRow) -> None:
    if lookup._answer is not None and not lookup._answer.done():
        lookup._done = row
        lookup._answer.set_result(None)
