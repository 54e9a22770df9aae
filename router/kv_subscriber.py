"""The subscriber to one replica's KV events: a SUB socket, a replay socket, reconnects."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import zmq
import zmq.asyncio
from zmq.utils.monitor import recv_monitor_message

from router.kv_events import EventBatch, EventStream, decode


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
        context = zmq.asyncio.Context()
        subscription = context.socket(zmq.SUB)
        watch = zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED
        monitor = subscription.get_monitor_socket(watch)
        try:
            subscription.setsockopt(zmq.RCVHWM, 100_000)
            subscription.setsockopt(zmq.SUBSCRIBE, self._endpoints.topic.encode())
            subscription.connect(self._endpoints.events)
            await self._follow(context, subscription, monitor)
        finally:
            subscription.disable_monitor()
            monitor.close(linger=0)
            subscription.close(linger=0)
            context.destroy(linger=0)

    async def _follow(
        self,
        context: zmq.asyncio.Context,
        subscription: zmq.asyncio.Socket,
        monitor: zmq.asyncio.Socket,
    ) -> None:
        poller = zmq.asyncio.Poller()
        poller.register(subscription, zmq.POLLIN)
        poller.register(monitor, zmq.POLLIN)
        connected = False
        while True:
            ready = dict(await poller.poll(round(self._idle_check_s * 1000)))
            if monitor in ready:
                message = await recv_monitor_message(monitor)
                connected = message["event"] == zmq.EVENT_HANDSHAKE_SUCCEEDED
                if connected:
                    await self._resync(context, None)
                else:
                    self._stream.lost()
            elif subscription in ready:
                batch = decode(await subscription.recv_multipart())
                if batch is not None and not self._stream.live(batch):
                    await self._resync(context, batch)
            elif connected and self._endpoints.replay is not None:
                await self._resync(context, None)

    async def _resync(self, context: zmq.asyncio.Context, missed: EventBatch | None) -> None:
        """Bring the stream in order by replay; where that fails, begin anew with ``missed``."""
        stream = self._stream
        try:
            if not stream.replayed(await self._replay(context, stream.replay_from)):
                stream.rebuild(await self._replay(context, 0))
        except (TimeoutError, zmq.ZMQError):
            self.replays_failed += self._endpoints.replay is not None
            stream.restart(missed)

    async def _replay(self, context: zmq.asyncio.Context, start: int) -> Sequence[EventBatch]:
        """All buffered batches from ``start`` on.

        Raises:
            TimeoutError: no replay endpoint, or it did not finish in time.
        """
        if self._endpoints.replay is None:
            raise TimeoutError("the replica offers no replay")
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
