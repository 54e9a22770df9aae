"""A cluster over real sockets: every message crosses one, and the wall clock runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from deployments.gateway.prompts import PromptEncoder
from deployments.listener import Listener, ReplicaApp
from deployments.role_page import PATH, RolePage
from deployments.testing.cluster import Cluster, Host, SilentFeed, no_page
from deployments.testing.exchange import Exchange, SocketExchange
from deployments.testing.kept import KeptBlocks
from deployments.testing.recording import RecordingLedger
from deployments.testing.world import TOKEN, World, http_world
from weir.settings import Settings


class _SocketHost(Host):
    def __init__(self, name: str, interval_s: float, kept: KeptBlocks) -> None:
        super().__init__(name, interval_s, kept)
        self._running = asyncio.Event()
        self._running.set()
        app = ReplicaApp(no_page, self.streams, TOKEN, {PATH: RolePage(self.streams.roles)})

        async def stoppable(scope: Any, receive: Any, send: Any) -> None:
            async def receive_running() -> Any:
                event = await receive()
                await self._running.wait()
                return event

            async def send_running(event: Any) -> None:
                await self._running.wait()
                await send(event)

            await app(scope, receive_running, send_running)

        self._listener = Listener(stoppable, "127.0.0.1")

    @property
    def address(self) -> str:
        return self._listener.address

    async def start(self) -> None:
        """Listen."""
        await self._listener.start()
        telling = self.streams.tell_load_forever()
        self._telling = asyncio.get_running_loop().create_task(telling)

    @property
    def survived(self) -> bool:
        return not self._telling.cancelled()

    async def _kill(self) -> None:
        self._running.set()
        self._telling.cancel()
        await asyncio.gather(self._telling, return_exceptions=True)
        await self._listener.stop()

    def freeze(self) -> None:
        self._running.clear()
        self.generator.freeze()

    def thaw(self) -> None:
        self._running.set()
        self.generator.thaw()


class SocketCluster(Cluster):
    """Every message crosses a socket, the wall clock runs."""

    virtual = False

    def __init__(self, world: World, ledger: RecordingLedger) -> None:
        super().__init__()
        self.ledger = ledger
        self._world = world
        self.url = world.url
        self.gateway, self.model = world.gateway, world.model
        self.responses = world.responses
        self.watch_connections()

    async def add(self, name: str, interval_s: float = 0.005, **details: Any) -> Host:
        host = _SocketHost(name, interval_s, self.kept)
        await host.start()
        self.hosts[name] = host
        self.announce(host, **details)
        await self.model.fleet.connection(name)
        return host

    def ask(self, path: str, body: Mapping[str, Any], key: str, **headers: str) -> Exchange:
        self.asked += 1
        told = {"authorization": f"Bearer {key}", **headers}
        return SocketExchange().ask(self._world.url + path, body, told)


@asynccontextmanager
async def socket_cluster(
    settings: Settings, encoder: PromptEncoder, files: Path | None = None
) -> AsyncIterator[SocketCluster]:
    """Over real sockets, without replicas yet. ``files``: a folder for files and batches, where
    there are to be any."""
    encoders = {model.name: encoder for model in settings.models}
    ledger = RecordingLedger()
    feed = SilentFeed()
    async with http_world(settings, encoders, feed=feed, ledger=ledger, files=files) as world:
        cluster = SocketCluster(world, ledger)
        try:
            yield cluster
        finally:
            await asyncio.gather(*(host.kill() for host in cluster.hosts.values()))
