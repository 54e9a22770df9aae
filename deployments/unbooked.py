"""What an engine has counted, until it is in a ledger.

A gateway books what its streams came to. One that is killed does not, and one whose connection
breaks books only what has reached it. So a replica keeps the last word of each stream until the
stream's gateway has confirmed that it is booked (:class:`deployments.wire.Booked`). What is left of
a connection that has ended is handed to another gateway, whichever is there or comes next; after
:data:`BOUND_S` without a confirmation, and when the replica ends, it is left in a file for the
ledger instead. It may so be told twice, or be booked already: the ledger takes each leg once
(:mod:`weir.ledger.orphans`).
"""

from __future__ import annotations

import logging
import os
import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from deployments import wire
from weir.ledger import Loss, Part, UsageRecord
from weir.ledger.outbox import Outbox
from weir.ledger.record import ORPHANED

_LOG = logging.getLogger("weir.replica")
#: So long somebody may take to confirm what was handed over.
BOUND_S = 20.0
#: Of a connection, and of all that have ended; the oldest are forgotten for more.
MOST = 50_000

#: Leaves what nobody has confirmed where the ledger finds it. False: it cannot.
Leave = Callable[[Sequence[wire.Owed]], bool]


@dataclass(slots=True)
class Kept:
    """One stream. ``used``: the engine's last word, once there is one. Times are on the loop's
    clock."""

    origin: wire.Origin
    began_s: float
    used: wire.Used | None = None
    ended_s: float = 0.0

    def owed(self, now_s: float) -> wire.Owed | None:
        """What is to be told; None where the engine has done nothing."""
        used = self.used
        if used is None or not (used.prompt_tokens or used.output_tokens):
            return None
        return wire.Owed(
            self.origin,
            used.prompt_tokens,
            used.cached_tokens,
            used.output_tokens,
            used.prefill_s,
            used.decode_s,
            now_s - self.began_s,
            now_s - self.ended_s,
        )


def orphan_record(owed: wire.Owed, now_ms: int) -> UsageRecord:
    """What is owed, as the ledger takes it; ``now_ms`` is since the epoch."""
    origin = owed.origin
    return UsageRecord(
        leg=origin.leg + ORPHANED,
        request=origin.request,
        tenant=origin.tenant,
        key=origin.key,
        model=origin.model,
        asked=origin.asked,
        adapter=origin.adapter,
        pool=origin.pool,
        replica=origin.replica,
        priority_class=origin.priority_class,
        endpoint=origin.endpoint,
        batch=origin.batch,
        part=Part.ORPHAN,
        loss=Loss.ORPHANED,
        started_ms=now_ms - int(owed.began_ago_s * 1000),
        ended_ms=now_ms - int(owed.ended_ago_s * 1000),
        prompt_tokens=owed.prompt_tokens,
        cached_tokens=owed.cached_tokens,
        output_tokens=owed.output_tokens,
        prefill_us=_microseconds(owed.prefill_s),
        decode_us=_microseconds(owed.decode_s),
    )


def _microseconds(seconds: float) -> int | None:
    return round(seconds * 1e6) if seconds >= 0.0 else None


def leaving_in(root: str | None, wall_clock: Callable[[], float] = time.time) -> Leave | None:
    """Leaves it in an outbox below a ledger's folder, which a gateway of this machine takes over.
    None where there is no such folder."""
    return _leaving(Path(root).expanduser().absolute(), wall_clock) if root else None


def _leaving(root: Path, wall_clock: Callable[[], float]) -> Leave:

    def leave(owed: Sequence[wire.Owed]) -> bool:
        now_ms = int(wall_clock() * 1000)
        name = f"{os.uname().nodename}-{os.getpid()}-{secrets.token_hex(4)}"
        try:
            outbox = Outbox.create(root, name)
        except OSError as error:
            _LOG.error("what an engine has counted cannot be left", extra={"reason": str(error)})
            return False
        try:
            outbox.append([orphan_record(each, now_ms) for each in owed])
            return not outbox.held
        finally:
            outbox.close()

    return leave


class Books:
    """Of one connection: its own streams, and the legs of others that its gateway was told of."""

    def __init__(self, unbooked: Unbooked) -> None:
        self._unbooked = unbooked
        self._streams: dict[int, Kept] = {}
        self._ended = False
        self.handed: dict[str, Kept] = {}

    def open(self, stream: int, origin: wire.Origin, now_s: float) -> None:
        """A stream begins."""
        self._streams[stream] = Kept(origin, now_s)
        if len(self._streams) > MOST:
            del self._streams[next(iter(self._streams))]

    def used(self, used: wire.Used, now_s: float) -> None:
        """The engine's last word on a stream."""
        kept = self._streams.get(used.stream)
        if kept is None:
            return
        kept.used, kept.ended_s = used, now_s
        if self._ended:
            del self._streams[used.stream]
            self._unbooked.take((kept,))

    def forget(self, stream: int) -> None:
        """It was never started."""
        self._streams.pop(stream, None)

    def booked(self, told: wire.Booked) -> None:
        """The gateway's ledger has them."""
        for stream in told.streams:
            self._streams.pop(stream, None)
        for leg in told.legs:
            self.handed.pop(leg, None)

    def close(self) -> None:
        """The connection has ended. Streams that are still to be ended follow with their last
        word."""
        self._ended = True
        ended = [stream for stream, kept in self._streams.items() if kept.used is not None]
        left = [self._streams.pop(stream) for stream in ended]
        handed, self.handed = self.handed, {}
        self._unbooked.take((*handed.values(), *left))


class Teller(Protocol):
    """A connection to a gateway."""

    books: Books

    def tell(self, message: wire.FromReplica) -> None: ...


class Unbooked:
    """Of a replica. ``clock``: the loop's; ``leave``: None where there is no place for it."""

    def __init__(self, clock: Callable[[], float], leave: Leave | None = None) -> None:
        self._clock = clock
        self._leave = leave
        self._waiting: dict[str, Kept] = {}
        self._connections: dict[Teller, None] = {}

    @property
    def waiting(self) -> int:
        """Legs that no gateway has been told of yet."""
        return len(self._waiting)

    def joined(self, connection: Teller) -> None:
        """A gateway is connected: it is told what waits."""
        self._connections[connection] = None
        self._hand_over()

    def left(self, connection: Teller) -> None:
        """A gateway is gone, or goes."""
        self._connections.pop(connection, None)
        connection.books.close()

    def take(self, legs: Iterable[Kept]) -> None:
        """Legs whose gateway is gone."""
        self._waiting |= {kept.origin.leg: kept for kept in legs}
        while len(self._waiting) > MOST:
            del self._waiting[next(iter(self._waiting))]
            _LOG.error("what an engine has counted is in no ledger: too much waits for one")
        self._hand_over()

    def sweep(self, everything: bool = False) -> None:
        """Leave in a file what nobody has confirmed in time, or all of it."""
        if self._leave is None or not (everything or self._waiting or self._connections):
            return
        overdue_s = self._clock() - BOUND_S
        found: dict[str, Kept] = {}
        for legs in (self._waiting, *(each.books.handed for each in self._connections)):
            if legs:
                late = {n: k for n, k in legs.items() if everything or k.ended_s < overdue_s}
                found |= late
        owed = [told for kept in found.values() if (told := kept.owed(self._clock()))]
        if found and (not owed or self._leave(owed)):
            for legs in (self._waiting, *(each.books.handed for each in self._connections)):
                for leg in found:
                    legs.pop(leg, None)

    def _hand_over(self) -> None:
        if not self._waiting or not self._connections:
            return
        connection, now_s = next(iter(self._connections)), self._clock()
        waiting, self._waiting = self._waiting, {}
        for leg, kept in waiting.items():
            told = kept.owed(now_s)
            if told is not None:
                connection.books.handed[leg] = kept
                connection.tell(told)
