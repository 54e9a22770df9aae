"""A cluster in virtual time: one event loop for all processes, and a network that fails as told."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from prometheus_client import CollectorRegistry

from deployments.gateway.accounts import Account
from deployments.gateway.app import GatewayApp
from deployments.gateway.building import build_gateway
from deployments.gateway.handle import Gateway
from deployments.gateway.prompts import PromptEncoder
from deployments.gateway.responses import Responses
from deployments.gateway.transport import ChannelClosedError
from deployments.testing.cluster import Cluster, Host, SilentFeed, no_page
from deployments.testing.distant import DistantStore
from deployments.testing.exchange import Exchange, MemoryExchange
from deployments.testing.kept import KeptBlocks
from deployments.testing.recording import RecordingLedger
from deployments.testing.world import CancelOnDisconnect, PlainEnricher, memory_responses
from weir.metrics import GatewayMetrics
from weir.settings import Settings
from weir.testing.links import LinkSettings
from weir.testing.network import MemoryNetwork, Node


class MemoryHost(Host):
    def __init__(
        self, name: str, interval_s: float, kept: KeptBlocks, network: MemoryNetwork
    ) -> None:
        super().__init__(name, interval_s, kept)
        self.node: Node = network.add_node(name, self._start)

    def _start(self) -> Any:
        streams = self._boot()
        asyncio.get_running_loop().create_task(streams.tell_load_forever())
        return streams.serve

    @property
    def address(self) -> str:
        return self.name

    @property
    def survived(self) -> bool:
        return self.node.up and self.node.starts == 1

    async def _kill(self) -> None:
        self.node.kill()

    def restart(self) -> None:
        """Boot it again after :meth:`kill`."""
        self.node.start()

    def freeze(self) -> None:
        self.node.freeze()

    def thaw(self) -> None:
        self.node.resume()


class MemoryCluster(Cluster):
    """In one virtual-time loop; ``network`` has the links and their faults."""

    hosts: dict[str, MemoryHost]  # type: ignore[assignment]
    virtual = True

    def __init__(
        self,
        gateway: Gateway,
        responses: Responses,
        network: MemoryNetwork,
        ledger: RecordingLedger,
    ) -> None:
        super().__init__()
        self.ledger = ledger
        self.gateway = gateway
        self.responses = responses
        self.model = next(iter(gateway.models.values()))
        self.network = network
        self.watch_connections()
        self._app = CancelOnDisconnect(GatewayApp(gateway, responses, no_page))

    async def add(self, name: str, interval_s: float = 0.005, **details: Any) -> Host:
        host = MemoryHost(name, interval_s, self.kept, self.network)
        self.hosts[name] = host
        self.announce(host, **details)
        await self.model.fleet.connection(name)
        return host

    def ask(self, path: str, body: Mapping[str, Any], key: str, **headers: str) -> Exchange:
        self.asked += 1
        told = {"authorization": f"Bearer {key}", **headers}
        return MemoryExchange(self._app).ask(path, body, told)


@asynccontextmanager
async def memory_cluster(
    settings: Settings,
    encoder: PromptEncoder,
    seed: int = 0,
    links: LinkSettings | None = None,
) -> AsyncIterator[MemoryCluster]:
    """In virtual time, without replicas yet. Everything random follows from ``seed``."""
    loop = asyncio.get_running_loop()
    rng = random.Random(f"gateway|{seed}")
    async with MemoryNetwork(ChannelClosedError, seed, links) as network:
        ledger = RecordingLedger()
        store = DistantStore(_now_ms, random.Random(f"account|{seed}"))
        gateway = build_gateway(
            settings,
            {model.name: encoder for model in settings.models},
            network.transport("gateway"),
            SilentFeed(),
            PlainEnricher(),
            GatewayMetrics(CollectorRegistry()),
            rng=rng,
            ids=lambda: f"{rng.getrandbits(64):016x}",
            wall_clock=loop.time,
            ledger=ledger,
            account=Account(store, _now_ms),
        )
        responses = memory_responses(gateway, settings)
        cluster = MemoryCluster(gateway, responses, network, ledger)
        try:
            yield cluster
        finally:
            await responses.aclose()
            for model in gateway.models.values():
                await model.close()


def _now_ms() -> int:
    return int(asyncio.get_running_loop().time() * 1000)
