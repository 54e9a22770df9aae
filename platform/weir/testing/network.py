"""A network in memory, between gateways and replicas that run in one virtual-time loop.

A replica is a :class:`Node`: an address, and a function that boots its ASGI WebSocket app inside a
simulated process. A gateway gets a :class:`MemoryTransport`, which has the shape of the gateway's
own transport protocol; the class of its error is handed in. Between each gateway and each node lies
a :class:`Link`. Every random draw comes from a generator seeded with the network's seed and the
connection it is for, so that a change on one link changes no other link's draws.

Faults are calls (:meth:`Node.kill`, :meth:`Node.freeze`, :meth:`Link.stall`, …) or shares
of messages (:class:`LinkSettings`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from weir.testing.links import App, Connection, Counts, Link, LinkSettings
from weir.testing.pipes import PipeClosedError
from weir.testing.processes import Process

#: Starts a replica and returns its app; tasks that it creates belong to the replica's process.
Boot = Callable[[], App]


class MemoryNetwork:
    """Use as ``async with``: leaving it kills every node and waits until their tasks have ended."""

    def __init__(
        self,
        closed_error: type[Exception],
        seed: int = 0,
        settings: LinkSettings | None = None,
    ) -> None:
        self.closed_error = closed_error
        self.seed = seed
        self.counts = Counts()
        self._settings = settings or LinkSettings()
        self._nodes: dict[str, Node] = {}
        self._links: dict[tuple[str, str], Link] = {}
        self._channels: dict[MemoryChannel, None] = {}

    async def __aenter__(self) -> MemoryNetwork:
        return self

    async def __aexit__(self, *error: object) -> None:
        for node in self._nodes.values():
            await node.bury()

    def add_node(self, address: str, boot: Boot) -> Node:
        """A replica at an address, started."""
        node = self._nodes[address] = Node(address, boot)
        node.start()
        return node

    def node(self, address: str) -> Node:
        """The node at an address. KeyError: there is none."""
        return self._nodes[address]

    def link(self, gateway: str, address: str) -> Link:
        """The link between a gateway and an address."""
        key = (gateway, address)
        if key not in self._links:
            name = f"{gateway} - {address}"
            self._links[key] = Link(name, self.seed, self._settings, self.counts)
        return self._links[key]

    @property
    def links(self) -> tuple[Link, ...]:
        """Those that were used or asked for."""
        return tuple(self._links.values())

    def transport(self, gateway: str) -> MemoryTransport:
        """What a gateway of this name connects with."""
        return MemoryTransport(self, gateway)

    def open_channels(self) -> list[str]:
        """The channels that their gateway has not closed, broken ones too."""
        return [str(channel) for channel in self._channels]

    async def open(self, gateway: str, address: str) -> MemoryChannel:
        """Connect; called by :class:`MemoryTransport`."""
        link = self.link(gateway, address)
        self.counts.connects += 1
        await asyncio.sleep(link.settings.latency.draw(link.random))
        if link.black_hole:
            self.counts.hung += 1
            await asyncio.get_running_loop().create_future()  # the caller bounds it
        node = self._nodes.get(address)
        if node is None or not node.up or link.refuses:
            self.counts.refused += 1
            raise self.closed_error(f"{address}: connection refused")
        connection = link.connect()
        node.serve(connection)
        channel = MemoryChannel(self, connection)
        self._channels[channel] = None
        self.counts.opened += 1
        try:
            await channel.accepted()
        except BaseException:
            await channel.close()
            raise
        return channel

    def forget(self, channel: MemoryChannel) -> None:
        """Called by a channel that its gateway has closed."""
        self.counts.closed += 1
        del self._channels[channel]


@dataclass(frozen=True, slots=True)
class MemoryTransport:
    """The gateway's ``ReplicaTransport``."""

    network: MemoryNetwork
    gateway: str

    async def connect(self, replica_id: str, address: str) -> MemoryChannel:
        """Connect. A frozen node accepts nothing: the caller bounds how long this takes.

        Raises:
            the network's ``closed_error``: refused.
        """
        return await self.network.open(self.gateway, address)


class MemoryChannel:
    """The gateway's ``Channel``."""

    def __init__(self, network: MemoryNetwork, connection: Connection) -> None:
        self._network = network
        self._connection = connection
        self._closed = False

    def __str__(self) -> str:
        return str(self._connection)

    async def accepted(self) -> None:
        """Wait for the server's accept."""
        await self._next()

    async def send(self, data: bytes) -> None:
        """See the protocol."""
        try:
            await self._connection.to_replica.send(data)
        except PipeClosedError as error:
            raise self._network.closed_error(str(error)) from error

    async def receive(self) -> bytes:
        """See the protocol."""
        item = await self._next()
        assert isinstance(item, bytes)
        return item

    async def close(self) -> None:
        """Let go: the replica learns it behind what was sent. Any number of calls."""
        if not self._closed:
            self._closed = True
            self._connection.close_by_gateway()
            self._network.forget(self)

    async def _next(self) -> object:
        try:
            return await self._connection.to_gateway.receive()
        except PipeClosedError as error:
            raise self._network.closed_error(str(error)) from error


class Node:
    """A replica: its process, and what is connected to it. ``starts`` counts boots."""

    def __init__(self, address: str, boot: Boot) -> None:
        self.address = address
        self.starts = 0
        self.connections: dict[Connection, None] = {}
        self._boot = boot
        self._process: Process | None = None
        self._app: App | None = None

    @property
    def up(self) -> bool:
        """Whether connections are taken; a frozen node's kernel takes them."""
        return self._process is not None and not self._process.dead

    @property
    def frozen(self) -> bool:
        """Whether it is frozen."""
        return self._process is not None and self._process.frozen

    def start(self) -> None:
        """Boot it; nothing is left of an earlier life. Does nothing while it is up."""
        if not self.up:
            self.starts += 1
            loop = asyncio.get_running_loop()
            self._process = Process(loop, f"{self.address} (start {self.starts})")
            self._app = self._process.call(self._boot)

    def serve(self, connection: Connection) -> None:
        """Called by a link for a new connection."""
        assert self._process is not None
        assert self._app is not None
        connection.enter(self.connections)
        self._watch()
        self._process.start(connection.serve(self._app))

    def kill(self, *, reset: bool = False) -> None:
        """End it at once. What it had sent arrives all the same, unless ``reset``."""
        if self._process is None or self._process.dead:
            return
        for connection in tuple(self.connections):
            if reset:
                connection.reset("connection reset: the replica was killed")
            else:
                connection.close_by_node("the replica was killed")
        self._process.kill()

    def freeze(self) -> None:
        """Nothing of it runs, and its kernel goes on, until :meth:`resume` or :meth:`kill`."""
        if self._process is not None:
            self._process.freeze()
            self._watch()

    def resume(self) -> None:
        """Go on after a freeze."""
        if self._process is not None:
            self._process.resume()
            self._watch()

    async def bury(self) -> None:
        """Kill it and wait until its tasks have ended."""
        self.kill()
        process = self._process
        while process is not None and process.tasks:
            await asyncio.wait(process.tasks)

    def _watch(self) -> None:
        for connection in tuple(self.connections):
            connection.peer_frozen = self.frozen
            connection.watch()
