"""The gateway's side of the connection to one replica: many token streams over one channel."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from deployments import wire
from deployments.gateway.outputs import Output, join
from deployments.gateway.plan import AdapterBusyError
from deployments.gateway.pulse import Pulse
from deployments.gateway.transport import Channel, ChannelClosedError
from weir.errors import (
    BadRequestError,
    OverloadedError,
    ReplicaFailedError,
    UnsupportedError,
    WeirError,
)

_LOG = logging.getLogger("weir.gateway")
#: A replica repeats its load at least once a second: silence is noticed after so many seconds.
SILENCE_S = 3.0
#: One that has been silent for so long is given nothing new, where another replica can take it.
DOUBT_S = 1.5
#: The least time that an engine with work may take for a step.
STEP_S = 5.0
#: One that looks so much later than it meant to did not run, as on a machine that was paused, and
#: can have heard nobody: silence counts from then on.
_AWAY_S = 1.0
#: Streams that a draining replica may still end by itself have so long for it.
DRAIN_GRACE_S = 2.0
#: A replica that is silent, or that has something to do, is looked at so often.
_WATCH_PERIOD_S = 0.25
#: Where a replica changes its role its streams go on elsewhere one after the other, so many seconds
#: apart: the prompt of each is computed again there.
_BETWEEN_MOVES_S = 0.05
#: Streams that were cancelled, and of which the replica has not said what they came to.
_MOST_CANCELLED = 4096
#: So much later a replica is told what is booked: of many streams at a time.
_BOOKED_PERIOD_S = 0.25
_OF_THE_REPLICA = (wire.Load, wire.Adapters, wire.Owed)


class ReplicaLostError(ReplicaFailedError):
    """The replica went away, or stopped answering, whatever the request was."""


class ReplicaStuckError(ReplicaLostError):
    """The replica's engine died, or it stopped answering: perhaps of the request."""


class ReplicaLeavingError(ReplicaLostError):
    """The replica is draining: the stream goes on, but had better go on elsewhere."""


class ReplicaChangedError(ReplicaLeavingError):
    """The replica is to compute prompts only: the stream had better go on elsewhere, where that is
    easy. It may as well stay."""


class Listener(Protocol):
    """Who hears what a replica says of itself."""

    def heard_load(self, replica_id: str, load: wire.Load) -> None: ...

    def heard_adapters(self, replica_id: str, adapters: wire.Adapters) -> None: ...

    def heard_owed(self, connection: ReplicaConnection, owed: wire.Owed) -> None:
        """What another gateway has not booked; whoever books it says so to the connection."""
        ...

    def stepped(self, replica_id: str) -> None:
        """The replica's engine has ended a step."""
        ...

    def lost(self, connection: ReplicaConnection) -> None: ...

    def leaving(self, replica_id: str) -> None:
        """The replica drains."""
        ...

    def doubted(self, replica_id: str, for_s: float) -> None:
        """The replica has been silent for longer than usual; said again within ``for_s`` seconds
        while it is."""
        ...


class TokenStream:
    """One stream's output as it arrives. Read with :meth:`next`; the last output is a ``Done`` or
    an ``Embedded``. ``started`` is set when the replica says that the prompt is prefilled; ``used``
    when it says what the engine has counted, which may be after the stream was closed: then
    ``on_used`` is called. ``stays``: it is no answer, so it ends where it is whatever the replica
    is for; ``advised``: it was told that it had better go on elsewhere."""

    __slots__ = (
        "_connection",
        "_failure",
        "_items",
        "_waiter",
        "advised",
        "finished",
        "number",
        "on_used",
        "started",
        "stays",
        "used",
    )

    def __init__(self, connection: ReplicaConnection, number: int) -> None:
        self._connection = connection
        self._items: deque[Output] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._failure: WeirError | None = None
        self.started: wire.Started | None = None
        self.used: wire.Used | None = None
        self.on_used: Callable[[wire.Used], None] | None = None
        self.number = number
        self.finished = False
        self.stays = False
        self.advised = False

    async def next(self) -> Output:
        """The next output; everything that has arrived meanwhile is joined into one.

        Raises:
            ReplicaLeavingError: the replica drains; the stream goes on if it is read on.
            WeirError: the replica refused the request, failed, or went away.
        """
        items = self._items
        while not items:
            if self._failure is not None:
                failure = self._failure
                if isinstance(failure, ReplicaLeavingError):
                    self._failure = None
                raise failure
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        if len(items) == 1:
            return items.popleft()
        arrived = list(items)
        items.clear()
        return join(arrived)

    def close(self) -> None:
        """Nobody reads any more: the replica frees the stream unless it has finished."""
        if not self.finished:
            self.finished = True
            self._connection.cancel(self)

    def feed(self, item: Output) -> None:
        """Called by the connection for each output."""
        self._items.append(item)
        if not isinstance(item, wire.Chunk):
            self.finished = True
        self._notify()

    def fail(self, error: WeirError) -> None:
        """Called by the connection when the stream cannot go on."""
        self._failure = error
        self.finished = True
        self._notify()

    def advise(self, advice: ReplicaLeavingError) -> None:
        """Called by the connection when the stream had better go on elsewhere."""
        self.advised = True
        if not self.finished and self._failure is None:
            self._failure = advice
            self._notify()

    def booked(self) -> None:
        """What the replica has said of its counts is in the ledger: it need not keep it."""
        self._connection.booked(self.number)

    def heard_used(self, used: wire.Used) -> None:
        """Called by the connection with what the engine has counted."""
        self.used = used
        if self.on_used is not None:
            self.on_used(used)

    def _notify(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class ReplicaConnection:
    """An open connection. Broken is broken: the fleet opens another."""

    def __init__(self, replica_id: str, channel: Channel, listener: Listener) -> None:
        loop = asyncio.get_running_loop()
        self.replica_id = replica_id
        self.broken = False
        self._channel = channel
        self._listener = listener
        self._clock = loop.time
        self._streams: dict[int, TokenStream] = {}
        self._cancelled: dict[int, TokenStream] = {}
        self._booked: list[int] = []
        self._booked_legs: list[str] = []
        self._numbers = itertools.count(1)
        self._outbox: list[wire.ToReplica] = []
        self._wake = asyncio.Event()
        now_s = loop.time()
        self._voice = Pulse(now_s, SILENCE_S)
        self._steps = Pulse(now_s, STEP_S)
        self._step_count = 0
        self._preparing = 0
        self.draining = False
        self._role = ""
        self._tasks = [
            loop.create_task(self._read()),
            loop.create_task(self._write()),
            loop.create_task(self._watch()),
        ]

    @property
    def open_streams(self) -> int:
        """Streams that have not ended."""
        return len(self._streams)

    def submit(self, request: wire.Submit | wire.Embed) -> TokenStream:
        """Start a stream; its number is filled in.

        Raises:
            ReplicaLostError: the connection is gone.
        """
        if self.broken:
            raise ReplicaLostError(f"The connection to replica {self.replica_id} is gone.")
        now_s = self._clock()
        if not self._streams:
            self._steps.rest(now_s)
        stream = TokenStream(self, next(self._numbers))
        self._streams[stream.number] = stream
        self._tell(msgspec.structs.replace(request, stream=stream.number))
        return stream

    def cancel(self, stream: TokenStream) -> None:
        """Forget a stream and have the replica free it, which then says what it came to."""
        number = stream.number
        if self._streams.pop(number, None) is not None and not self.broken:
            self._cancelled[number] = stream
            if len(self._cancelled) > _MOST_CANCELLED:
                del self._cancelled[next(iter(self._cancelled))]
            self._tell(wire.Cancel(number))

    def booked(self, stream: int | None = None, leg: str | None = None) -> None:
        """The ledger has a stream's counts, or those that the replica owed for a leg."""
        if self.broken:
            return
        if not self._booked and not self._booked_legs:
            asyncio.get_running_loop().call_later(_BOOKED_PERIOD_S, self._tell_booked)
        if stream is not None:
            self._booked.append(stream)
        if leg is not None:
            self._booked_legs.append(leg)

    def _tell_booked(self) -> None:
        streams, self._booked = self._booked, []
        legs, self._booked_legs = self._booked_legs, []
        if not self.broken:
            self._tell(wire.Booked(streams, legs))

    async def close(self) -> None:
        """Close the channel; streams that are left fail."""
        self._break("the gateway closed the connection", level=logging.DEBUG)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._channel.close()

    def _tell(self, message: wire.ToReplica) -> None:
        self._outbox.append(message)
        self._wake.set()

    async def _write(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            batch, self._outbox = self._outbox, []
            try:
                for message in batch:
                    await self._channel.send(wire.encode(message))
            except ChannelClosedError as error:
                self._break(str(error))
                return

    async def _read(self) -> None:
        reason = "the replica closed the connection"
        try:
            while True:
                self._dispatch(await self._channel.receive())
        except (ChannelClosedError, msgspec.MsgspecError) as error:
            reason = str(error) or type(error).__name__
        finally:
            self._break(reason)

    async def _watch(self) -> None:
        """Break the connection when the replica is silent, or its engine makes no step."""
        while not self.broken:
            look_away_s = self._look_away_s()
            due_s = self._clock() + look_away_s
            await asyncio.sleep(look_away_s)
            now_s = self._clock()
            if now_s - due_s > _AWAY_S:
                self._voice.rest(now_s)
                self._steps.rest(now_s)
            if self._voice.overdue(now_s):
                self._break(f"it said nothing for {self._voice.bound_s:.1f} s", stuck=True)
                return
            if self._voice.silence_s(now_s) > DOUBT_S and not self.draining:
                self._listener.doubted(self.replica_id, 2 * _WATCH_PERIOD_S)
            if len(self._streams) <= self._preparing or not self._step_count:
                self._steps.rest(now_s)
            elif self._steps.overdue(now_s):
                reason = f"its engine made no step for {self._steps.bound_s:.1f} s"
                self._break(reason, stuck=True)

    def _look_away_s(self) -> float:
        """A replica without streams can only fall silent: not before so long."""
        if self._streams:
            return _WATCH_PERIOD_S
        return max(_WATCH_PERIOD_S, DOUBT_S - self._voice.silence_s(self._clock()))

    def _dispatch(self, data: bytes) -> None:
        now_s = self._clock()
        self._voice.beat(now_s)
        stepped = False  # one message holds what one engine step put out
        for event in wire.decode_from_replica(data):
            if isinstance(event, _OF_THE_REPLICA):
                self._heard(event, now_s)
                continue
            if not stepped and not isinstance(event, wire.Failed | wire.Used):
                # First, because tokens may make room for the next dispatch.
                stepped = True
                self._steps.beat(now_s)
                self._listener.stepped(self.replica_id)
            stream = self._streams.get(event.stream)
            if stream is None:
                self._cancelled_said(event)
                continue
            if isinstance(event, wire.Used):
                stream.used = event
                continue
            if isinstance(event, wire.Started):
                stream.started = event
                continue
            if not isinstance(event, wire.Chunk):
                del self._streams[event.stream]
            if isinstance(event, wire.Failed):
                stream.fail(_failure(event))
            else:
                stream.feed(event)

    def _cancelled_said(self, event: Any) -> None:
        """Something of a stream that was cancelled here: nobody wants its output, but what the
        engine has counted is used all the same. Its last message may have been on its way."""
        if isinstance(event, wire.Chunk | wire.Started) and not isinstance(event, wire.Done):
            return
        stream = self._cancelled.pop(event.stream, None)
        if stream is not None and isinstance(event, wire.Used):
            stream.heard_used(event)

    def _heard(self, event: wire.Load | wire.Adapters | wire.Owed, now_s: float) -> None:
        if isinstance(event, wire.Load):
            self._heard_load(event, now_s)
        elif isinstance(event, wire.Adapters):
            self._listener.heard_adapters(self.replica_id, event)
        else:
            self._listener.heard_owed(self, event)

    def _heard_load(self, load: wire.Load, now_s: float) -> None:
        if load.steps != self._step_count:
            self._step_count = load.steps
            self._steps.beat(now_s)
        self._preparing = load.preparing
        self._listener.heard_load(self.replica_id, load)
        if load.draining and not self.draining:
            self.draining = True
            self._listener.leaving(self.replica_id)
            asyncio.get_running_loop().call_later(DRAIN_GRACE_S, self._send_away)
        if load.role != self._role:
            self._role = load.role
            if load.role == "prefill":
                last = max(self._streams, default=0)
                asyncio.get_running_loop().call_later(DRAIN_GRACE_S, self._send_on, last)

    def _send_on(self, last: int) -> None:
        """Advise the answers up to number ``last``, one after the other; later ones were placed by
        who knew what the replica is for."""
        if self._role != "prefill" or self.broken:
            return
        for number, stream in self._streams.items():
            if number > last:
                return
            if not stream.stays and not stream.advised:
                advice = f"Replica {self.replica_id} is to compute prompts only."
                stream.advise(ReplicaChangedError(advice))
                asyncio.get_running_loop().call_later(_BETWEEN_MOVES_S, self._send_on, last)
                return

    def _send_away(self) -> None:
        for stream in list(self._streams.values()):
            stream.advise(ReplicaLeavingError(f"Replica {self.replica_id} is leaving."))

    def _break(self, reason: str, level: int = logging.WARNING, stuck: bool = False) -> None:
        if self.broken:
            return
        self.broken = True
        streams, self._streams = list(self._streams.values()), {}
        self._cancelled.clear()
        _LOG.log(
            level,
            "replica lost",
            extra={"replica": self.replica_id, "streams": len(streams), "reason": reason},
        )
        self._listener.lost(self)
        kind = ReplicaStuckError if stuck else ReplicaLostError
        for stream in streams:
            stream.fail(kind(f"The replica failed during the request: {reason}."))


def _failure(event: wire.Failed) -> WeirError:
    if event.status == 400:
        return BadRequestError(event.message)
    if event.status == wire.ADAPTER_BUSY:
        return AdapterBusyError(event.message, retry_after_s=1.0)
    if event.status == 501:
        return UnsupportedError(event.message)
    if event.status == OverloadedError.status:
        return ReplicaStuckError(event.message)  # its engine is down: so for every request
    return ReplicaFailedError(event.message)
