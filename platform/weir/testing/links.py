"""Links between gateways and nodes, the connections over them, and what can befall both."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import StrEnum
from random import Random
from typing import Any

from weir.testing.pipes import NETWORK, Accept, Pipe, PipeClosedError, Traffic

Event = dict[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]
#: One WebSocket from accept to close, as ``TokenStreams.serve``.
App = Callable[[Receive, Send], Awaitable[None]]


class Direction(StrEnum):
    """Of messages on a link."""

    TO_REPLICA = "to replica"
    TO_GATEWAY = "to gateway"


@dataclass(frozen=True, slots=True)
class Latency:
    """Travel time of a message: ``least_s`` and an exponentially distributed time of mean
    ``extra_s``. A share of ``late_share`` takes ``late_s`` longer, and what follows it waits."""

    least_s: float = 0.0001
    extra_s: float = 0.0001
    late_share: float = 0.0
    late_s: float = 0.2

    def draw(self, random: Random) -> float:
        """Seconds."""
        extra = random.expovariate(1 / self.extra_s) if self.extra_s > 0 else 0.0
        late = self.late_s if self.late_share > random.random() else 0.0
        return self.least_s + extra + late


@dataclass(frozen=True, slots=True)
class LinkSettings:
    """``window_bytes``: unread bytes per direction before a sender must wait. ``silence_s``: a
    connection breaks once pings would have gone unanswered so long, because a direction is stalled
    or the node is frozen; None: never. ``loss_share``: of messages that are lost for good. TCP
    loses none singly, so that the direction stalls there and the connection breaks after
    ``loss_break_s``."""

    latency: Latency = Latency()
    window_bytes: int = 256 * 1024
    silence_s: float | None = None
    loss_share: float = 0.0
    loss_break_s: float = 10.0


@dataclass(slots=True)
class Counts:
    """Connections, counted. ``opened`` of ``connects`` were handed to a gateway, ``hung`` met a
    black hole; ``closed`` counts those that the gateway let go of, ``broken`` those that broke."""

    connects: int = 0
    refused: int = 0
    hung: int = 0
    opened: int = 0
    closed: int = 0
    broken: int = 0
    traffic: Traffic = field(default_factory=Traffic)


class Connection:
    """Both directions between a gateway and a node, and the node's ASGI side of it.

    It takes itself out of the ``registers`` when both sides know of its end. ``peer_frozen`` is
    kept by the node.
    """

    def __init__(self, link: Link, name: str) -> None:
        self.registers: list[dict[Connection, None]] = []
        self.peer_frozen = False
        self._link = link
        self._name = name
        self._gone = False
        self._told_connect = False
        self._closed_sides: set[Direction] = set()
        self._silence: asyncio.TimerHandle | None = None
        self.to_replica = self._pipe(Direction.TO_REPLICA)
        self.to_gateway = self._pipe(Direction.TO_GATEWAY)

    def __str__(self) -> str:
        return self._name

    def enter(self, register: dict[Connection, None]) -> None:
        """Be in a register until the end."""
        register[self] = None
        self.registers.append(register)

    def pipe(self, direction: Direction) -> Pipe:
        """The pipe of a direction."""
        return self.to_replica if direction is Direction.TO_REPLICA else self.to_gateway

    async def serve(self, app: App) -> None:
        """Run the node's app over it."""
        try:
            await app(self.asgi_receive, self.asgi_send)
        except PipeClosedError:
            pass  # how a server learns while it sends that nobody listens
        finally:
            self.close_by_node("the replica closed the connection")

    async def asgi_receive(self) -> Event:
        """ASGI's ``receive``."""
        if not self._told_connect:
            self._told_connect = True
            return {"type": "websocket.connect"}
        try:
            return {"type": "websocket.receive", "bytes": await self.to_replica.receive()}
        except PipeClosedError as error:
            return {"type": "websocket.disconnect", "code": 1006, "reason": str(error)}

    async def asgi_send(self, event: Event) -> None:
        """ASGI's ``send``. PipeClosedError, an OSError: it is known that nobody listens."""
        if event["type"] == "websocket.accept":
            await self.to_gateway.send(Accept())
        elif event["type"] == "websocket.send":
            await self.to_gateway.send(event["bytes"])
        else:
            self.close_by_node(f"the replica closed the connection ({event.get('code', 1000)})")

    def close_by_gateway(self) -> None:
        """An orderly end. The node learns it behind what was sent; until then what it sends itself
        is dropped."""
        self._close(Direction.TO_REPLICA, "the gateway closed the connection")

    def close_by_node(self, reason: str) -> None:
        """An orderly end. The gateway learns it behind what was sent; until then what it sends
        itself is dropped."""
        self._close(Direction.TO_GATEWAY, reason)

    def reset(self, reason: str) -> None:
        """Break it: what is under way is lost, both sides learn of it at once."""
        if not self._gone:
            self._link.counts.broken += 1
            self._end(reason)

    def lose(self, direction: Direction, after_s: float | None = None) -> None:
        """Lose what is under way in a direction from now on, and break after ``after_s``; None: the
        settings' ``loss_break_s``."""
        self.pipe(direction).lose()
        self.watch()
        wait_s = self._link.settings.loss_break_s if after_s is None else after_s
        reason = f"a message was lost {direction}"
        asyncio.get_running_loop().call_later(wait_s, self.reset, reason, context=NETWORK)

    def watch(self) -> None:
        """Break it after ``silence_s`` if a ping cannot be answered now; call on each change."""
        muted = self.peer_frozen or self.to_replica.stalled or self.to_gateway.stalled
        limit_s = self._link.settings.silence_s
        if self._silence is not None and not (muted and not self._gone):
            self._silence.cancel()
            self._silence = None
        elif muted and not self._gone and self._silence is None and limit_s is not None:
            loop = asyncio.get_running_loop()
            reason = f"no answer for {limit_s} s"
            self._silence = loop.call_later(limit_s, self.reset, reason, context=NETWORK)

    def _close(self, outgoing: Direction, reason: str) -> None:
        if self._gone or outgoing in self._closed_sides:
            return
        self._closed_sides.add(outgoing)
        incoming = next(d for d in Direction if d is not outgoing)
        self.pipe(outgoing).end(reason, lambda: self._end(reason))
        self.pipe(incoming).discard(reason)
        if len(self._closed_sides) == 2:
            self._end(reason)

    def _end(self, reason: str) -> None:
        self._gone = True
        self.to_gateway.reset(reason)
        self.to_replica.reset(reason)
        self.watch()
        for register in self.registers:
            register.pop(self, None)

    def _pipe(self, direction: Direction) -> Pipe:
        link = self._link
        random = Random(f"{link.seed}|{self}|{direction}")

        def delay() -> float:
            if link.settings.loss_share > random.random():
                asyncio.get_running_loop().call_soon(self.lose, direction, context=NETWORK)
            return link.settings.latency.draw(random)

        return Pipe(delay, link.settings.window_bytes, link.counts.traffic)


class Link:
    """Between one gateway and one address. ``settings`` may be replaced while it is in use.

    ``refuses``: connections are refused. ``black_hole``: connecting hangs.
    """

    def __init__(self, name: str, seed: int, settings: LinkSettings, counts: Counts) -> None:
        self.seed = seed
        self.settings = settings
        self.counts = counts
        self.refuses = False
        self.black_hole = False
        self.connections: dict[Connection, None] = {}
        self.random = Random(f"{seed}|{name}")
        self._name = name
        self._opened = 0
        self._stalled: set[Direction] = set()

    def __str__(self) -> str:
        return self._name

    def connect(self) -> Connection:
        """A new connection, which nobody serves yet."""
        self._opened += 1
        connection = Connection(self, f"{self} #{self._opened}")
        connection.enter(self.connections)
        for direction in sorted(self._stalled):
            connection.pipe(direction).stall()
        connection.watch()
        return connection

    def stall(self, direction: Direction) -> None:
        """Nothing arrives in this direction until :meth:`flow`, on new connections too."""
        self._stalled.add(direction)
        for connection in tuple(self.connections):
            connection.pipe(direction).stall()
            connection.watch()

    def flow(self, direction: Direction) -> None:
        """End a stall; what is late arrives now."""
        self._stalled.discard(direction)
        for connection in tuple(self.connections):
            connection.pipe(direction).flow()
            connection.watch()

    def lose(self, direction: Direction, after_s: float | None = None) -> None:
        """See :meth:`Connection.lose`; of every connection that is open now."""
        for connection in tuple(self.connections):
            connection.lose(direction, after_s)

    def half_close(self, direction: Direction) -> None:
        """End this direction only; the other one goes on."""
        for connection in tuple(self.connections):
            connection.pipe(direction).end(f"half closed {direction}")

    def reset(self, reason: str = "connection reset") -> None:
        """Break every connection; new ones can be opened."""
        for connection in tuple(self.connections):
            connection.reset(reason)
