"""From the outboxes into the Redis stream, and what has arrived in the database back to them.

One entry of the stream holds many records, as frames (:mod:`weir.ledger.frames`), with the outbox's
name and the number of the first. The writer tells in a hash, for each outbox, up to which number
the database has everything (:data:`COMMITTED`); only then an outbox is trimmed. So Redis may lose
the stream: what it lost is sent again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from redis.exceptions import RedisError

from weir.ledger.outbox import Batch, Outbox, OutboxLimits, adopt

_LOG = logging.getLogger("weir.ledger")
STREAM = "{weir:ledger}:stream"
COMMITTED = "{weir:ledger}:committed"
#: Between rounds while there is more than goes at a time, or while all of it has to go.
_HURRY_S = 0.1


@dataclass(frozen=True, slots=True)
class Pace:
    """``period_s``: so often new records are sent; each time costs the writer a transaction, which
    takes as long as those of fifty records. ``batch_bytes``: so many in one entry;
    ``batches``: so many entries at a time. ``ahead_records``: so many records of an outbox may be
    in Redis that the database does not have. ``adopt_period_s``: so often orphans are looked for.
    ``stalled_s``: after so long without progress of the database it is looked whether the stream
    still has what was sent."""

    period_s: float = 1.0
    batch_bytes: int = 32 * 1024
    batches: int = 8
    ahead_records: int = 20_000
    adopt_period_s: float = 5.0
    stalled_s: float = 5.0
    timeout_s: float = 5.0


class Watcher(Protocol):
    """Is told how shipping goes."""

    def shipped(self, outbox: Outbox, up: bool) -> None:
        """After each round; ``up``: Redis answered."""
        ...


@dataclass(slots=True)
class _Voyage:
    """What of an outbox is under way. ``committed``: up to there the database has it."""

    outbox: Outbox
    committed: int
    moved_s: float
    last_entry: bytes | str = ""


class Shipper:
    """Ships this process's outbox, and those whose owners are dead. ``redis``: a client of
    redis-py's asyncio, of one server or a cluster."""

    def __init__(
        self,
        redis: Any,
        outbox: Outbox,
        root: Path,
        watch: Watcher,
        clock: Callable[[], float],
        pace: Pace | None = None,
        limits: OutboxLimits | None = None,
    ) -> None:
        self._redis = redis
        self._own = outbox
        self._root = root
        self._watch = watch
        self._clock = clock
        self._pace = pace or Pace()
        self._limits = limits
        self._voyages = [_Voyage(outbox, 0, clock())]
        self._adopted_s = float("-inf")

    async def run(self) -> None:
        """Until cancelled."""
        more = False
        while True:
            await asyncio.sleep(min(_HURRY_S, self._pace.period_s) if more else self._pace.period_s)
            try:
                more = await self.round()
            except OSError as error:
                _LOG.error("an outbox cannot be read", extra={"reason": str(error)})

    async def round(self) -> bool:
        """Send what is new in every outbox, and trim what has arrived. Whether an outbox had more
        than goes at a time."""
        now_s = self._clock()
        if now_s - self._adopted_s >= self._pace.adopt_period_s:
            self._adopted_s = now_s
            self._adopt()
        sent = [await self._round(voyage) for voyage in list(self._voyages)]
        return max(sent, default=0) >= self._pace.batches

    async def flush(self, timeout_s: float) -> bool:
        """Send until the database has everything of this process's outbox, which is then removed.
        False: it has not, after ``timeout_s``; another process will find the outbox."""
        give_up_s = self._clock() + timeout_s
        voyage = self._voyages[0]
        while self._clock() < give_up_s:
            await self._round(voyage)
            if voyage.committed >= self._own.next and not self._own.held:
                self._own.remove()
                self._voyages.remove(voyage)
                return True
            await asyncio.sleep(min(_HURRY_S, self._pace.period_s))
        return False

    def close(self) -> None:
        """Let go of all outboxes; another process may take them over."""
        for voyage in self._voyages:
            voyage.outbox.close()
        self._voyages.clear()

    def _adopt(self) -> None:
        for outbox in adopt(self._root, self._limits):
            first = outbox.read_to
            _LOG.info("an outbox is taken over", extra={"outbox": outbox.name, "from": first})
            self._voyages.append(_Voyage(outbox, first, self._clock()))

    async def _round(self, voyage: _Voyage) -> int:
        """The number of entries that were sent."""
        outbox = voyage.outbox
        outbox.write_held()
        idle = outbox.read_to == voyage.committed == outbox.next
        if outbox is self._own and idle:
            self._watch.shipped(outbox, up=True)
            return 0
        batches, up = self._batches(voyage), False
        try:
            async with asyncio.timeout(self._pace.timeout_s):
                await self._send(voyage, batches)
            up = True
        except (RedisError, OSError, TimeoutError) as error:
            if batches:
                outbox.rewind(batches[0].first)
            told = {"outbox": outbox.name, "reason": str(error)}
            _LOG.debug("the ledger's stream cannot be written", extra=told)
        self._watch.shipped(outbox, up)
        if up and outbox is not self._own and self._arrived(voyage):
            await self._forget(voyage)
        return len(batches) if up else 0

    def _batches(self, voyage: _Voyage) -> list[Batch]:
        batches: list[Batch] = []
        outbox, pace = voyage.outbox, self._pace
        while (
            len(batches) < pace.batches
            and outbox.read_to - voyage.committed < pace.ahead_records
            and (batch := outbox.read(pace.batch_bytes)) is not None
        ):
            batches.append(batch)
        return batches

    async def _send(self, voyage: _Voyage, batches: list[Batch]) -> None:
        outbox = voyage.outbox
        pipeline = self._redis.pipeline(transaction=False)
        for batch in batches:
            numbers = {"s": batch.first, "n": batch.count, "b": voyage.committed}
            pipeline.xadd(STREAM, {"o": outbox.name, **numbers, "f": batch.frames})
        pipeline.hget(COMMITTED, outbox.name)
        *entries, told = await pipeline.execute()
        if entries:
            voyage.last_entry = entries[-1]
        committed, now_s = int(told or 0), self._clock()
        if committed > voyage.committed or entries or outbox.read_to == voyage.committed:
            voyage.moved_s = now_s
        if committed > voyage.committed:
            voyage.committed = committed
            outbox.trim(committed)
        elif now_s - voyage.moved_s > self._pace.stalled_s:
            await self._look_after(voyage)

    async def _look_after(self, voyage: _Voyage) -> None:
        """The database makes no progress. Is the writer away, or has Redis lost the stream?"""
        voyage.moved_s = self._clock()
        last = voyage.last_entry
        if last and await self._redis.xrange(STREAM, last, last):
            return
        outbox = voyage.outbox
        told = {"outbox": outbox.name, "from": voyage.committed}
        _LOG.warning("records are sent again: the stream has lost them", extra=told)
        outbox.rewind(voyage.committed)

    def _arrived(self, voyage: _Voyage) -> bool:
        """Whether nothing is left of an outbox of a dead process."""
        voyage.outbox.trim(voyage.committed)
        return voyage.outbox.empty

    async def _forget(self, voyage: _Voyage) -> None:
        voyage.outbox.remove()
        self._voyages.remove(voyage)
        try:
            async with asyncio.timeout(self._pace.timeout_s):
                await self._redis.hdel(COMMITTED, voyage.outbox.name)
        except (RedisError, OSError, TimeoutError) as error:
            _LOG.debug("a mark stays in Redis", extra={"reason": str(error)})
