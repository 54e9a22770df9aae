"""Gateways' accounts over a real Redis, and a connection to it that swallows its answers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal

from prometheus_client import CollectorRegistry

from deployments.gateway.accounts import Account, Most, RedisStore, Tab
from deployments.gateway.accounts.building import now_ms
from features.online import Patience, StoreLink, parse_address
from features.online.address import StoreAddress
from weir.cost import Used
from weir.metrics import GatewayMetrics
from weir.settings.money import AccountsSettings
from weir.tenancy import Budget, BudgetStep, Quotas, Tenant

#: Of a day, so that no test ends in another minute than it began in.
TENANT = Tenant("t", quotas=Quotas(requests_per_day=100, output_tokens_per_day=10_000))
RICH = Tenant(
    "rich", budget=Budget(Decimal("0.000001"), (BudgetStep(100, ("refuse",)),))
)  # 1000 nano-USD


class Gateway:
    """One gateway's account. ``store.start()`` has connected it."""

    def __init__(self, store: RedisStore, link: StoreLink, metrics: GatewayMetrics) -> None:
        self.store = store
        self.link = link
        self.metrics = metrics
        self.account = Account(store, now_ms)

    def open(self, tenant: Tenant = TENANT) -> Tab:
        tab = self.account.open(tenant)
        assert tab is not None
        return tab

    async def die(self) -> None:
        """As a killed process: nothing is settled, nothing is renewed."""
        if self.store._task is not None:
            self.store._task.cancel()
        if self.store._retry is not None:
            self.store._retry.cancel()
        await self.link.close()


@asynccontextmanager
async def gateways(port: int, count: int = 1, **settings: float) -> AsyncIterator[list[Gateway]]:
    """Gateways that are connected to the Redis at that port."""
    made = []
    for number in range(count):
        address = parse_address(f"redis://127.0.0.1:{port}/0")
        assert isinstance(address, StoreAddress)
        patience = Patience(probe_timeout_s=5.0, backoff_max_s=0.1)
        link, metrics = StoreLink(address, patience), GatewayMetrics(CollectorRegistry())
        told = AccountsSettings.model_validate({"timeout_ms": 5_000, **settings})
        store = RedisStore(link, told, f"g{number}", now_ms, metrics)
        made.append(Gateway(store, link, metrics))
        store.start()
    try:
        for gateway in made:
            await gateway.link.wait_until_up()
        yield made
    finally:
        for gateway in made:
            await gateway.store.aclose()


def most(output: int = 100, nano_usd: int = 0, model: str = "m") -> Most:
    return Most(model, Used(10, 0, output), nano_usd)


class Proxy:
    """Between a gateway and Redis. ``mute``: what Redis answers goes nowhere."""

    def __init__(self, port: int) -> None:
        self._to = port
        self.mute = False
        self.port = 0
        self._server: asyncio.Server | None = None
        self._writers: list[asyncio.StreamWriter] = []

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Break every connection, and take no new one."""
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, to = await asyncio.open_connection("127.0.0.1", self._to)
        self._writers += [writer, to]

        async def answers() -> None:
            while data := await there.read(65536):
                if not self.mute:
                    writer.write(data)

        task = asyncio.ensure_future(answers())
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                to.write(data)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        to.transport.abort()


@asynccontextmanager
async def proxied(port: int) -> AsyncIterator[Proxy]:
    proxy = Proxy(port)
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.stop()
