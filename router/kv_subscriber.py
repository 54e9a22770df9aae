"""The subscriber to one replica's KV events: a SUB socket, a replay socket, reconnects."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import zmq
import zmq.asyncio
from zmq.utils.monitor import parse_monitor_message

from router.kv_events import EventBatch, EventStream, decode

#: Batches that come within that time are read together. What is known of a cache may be that much
#: older, which is less than the time in which a long prompt is computed. A batch that comes alone
#: costs four times as much as one of ten.
_GATHER_S = 0.1
#: Other work of the event loop comes between so many.
_MOST_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class KvEndpoints:
    """Where a replica publishes (``tcp://host:port``), and where it replays (None: it cannot)."""

    events: str
    replay: str | None = None
    topic: str = "kv"


class KvEventSubscriber:
    """Keeps one :class:`EventStream` fed until :meth:`run` is cancelled.

    It asks for a replay when it connects (so a restarted gateway knows the replica's cache at
    once), when a batch is missing, when the connection was lost, and after ``idle_check_s``
    without events (a last batch may be lost without a gap to show for it).
    """

    def __init__(
        self,
        stream: EventStream,
        endpoints: KvEndpoints,
        *,
        replay_timeout_s: float = 5.0,
        idle_check_s: float = 10.0,
    ) -> None:
        self._stream = stream
        self._endpoints = endpoints
        self._replay_timeout_s = replay_timeout_s
        self._idle_check_s = idle_check_s
        self.replays_failed = 0

    async def run(self) -> None:
        """Connect and follow, for ever. ZMQ reconnects by itself."""
        context = zmq.Context()
        subscription = context.socket(zmq.SUB)
        watch = zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED
        monitor = subscription.get_monitor_socket(watch)
        arrivals = _Arrivals(subscription, monitor)
        try:
            subscription.setsockopt(zmq.RCVHWM, 100_000)
            subscription.setsockopt(zmq.SUBSCRIBE, self._endpoints.topic.encode())
            subscription.connect(self._endpoints.events)
            await self._follow(arrivals, subscription, monitor)
        finally:
            subscription.disable_monitor()
            monitor.close(linger=0)
            subscription.close(linger=0)
            context.destroy(linger=0)

    async def _follow(
        self,
        arrivals: _Arrivals,
        subscription: zmq.SyncSocket,
        monitor: zmq.SyncSocket,
    ) -> None:
        connected = False
        while True:
            arrived = await arrivals.wait(self._idle_check_s)
            while frames := _received(monitor):
                happened = parse_monitor_message(frames)["event"]
                connected = happened == zmq.EVENT_HANDSHAKE_SUCCEEDED
                if connected:
                    await self._resync(None)
                else:
                    self._stream.lost()
            for _ in range(_MOST_AT_ONCE):
                if not (frames := _received(subscription)):
                    break
                batch = decode(frames)
                if batch is not None and not self._stream.live(batch):
                    await self._resync(batch)
            if arrived:
                await asyncio.sleep(_GATHER_S)
            elif connected and self._endpoints.replay is not None:
                await self._resync(None)

    async def _resync(self, missed: EventBatch | None) -> None:
        """Bring the stream in order by replay; where that fails, begin anew with ``missed``."""
        stream = self._stream
        try:
            if not stream.replayed(await self._replay(stream.replay_from)):
                stream.rebuild(await self._replay(0))
        except (TimeoutError, zmq.ZMQError):
            self.replays_failed += self._endpoints.replay is not None
            stream.restart(missed)

    async def _replay(self, start: int) -> Sequence[EventBatch]:
        """All buffered batches from ``start`` on.

        Raises:
            TimeoutError: no replay endpoint, or it did not finish in time.
        """
        if self._endpoints.replay is None:
            raise TimeoutError("the replica offers no replay")
        context = zmq.asyncio.Context()
        socket = context.socket(zmq.DEALER)
        try:
            socket.setsockopt(zmq.RCVHWM, 0)
            socket.connect(self._endpoints.replay)
            async with asyncio.timeout(self._replay_timeout_s):
                await socket.send_multipart([b"", start.to_bytes(8, "big")])
                batches: list[EventBatch] = []
                while True:
                    frames = await socket.recv_multipart()
                    batch = decode(frames[1:])
                    if batch is None:
                        return batches
                    batches.append(batch)
        finally:
            socket.close(linger=0)
            context.destroy(linger=0)


class _Arrivals:
    """Says when one of the sockets has something. Not by ``zmq.asyncio``: that takes some 0.3 ms a
    message, and an engine publishes with every step."""

    def __init__(self, *sockets: zmq.SyncSocket) -> None:
        self._loop = asyncio.get_running_loop()
        self._sockets = sockets
        self._told = asyncio.Event()

    async def wait(self, timeout_s: float) -> bool:
        """Whether something has arrived before the time was over."""
        self._told.clear()
        for socket in self._sockets:
            self._loop.add_reader(socket.FD, self._told.set)
        try:
            # A descriptor tells of changes; what was there before them is in EVENTS.
            while not any(map(_has_message, self._sockets)):
                async with asyncio.timeout(timeout_s):
                    await self._told.wait()
                self._told.clear()
        except TimeoutError:
            return False
        finally:
            for socket in self._sockets:
                self._loop.remove_reader(socket.FD)
        return True


def _has_message(socket: zmq.SyncSocket) -> bool:
    state = socket.getsockopt(zmq.EVENTS)
    assert isinstance(state, int)
    return bool(state & zmq.POLLIN)


def _received(socket: zmq.SyncSocket) -> list[bytes]:
    """A message that is there already; empty: there is none."""
    try:
        return socket.recv_multipart(zmq.NOBLOCK)
    except zmq.Again:
        return []
