"""A gateway and its replicas in one process, built by the function that builds what ships."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from prometheus_client import CollectorRegistry

from deployments.batches.service import Batches
from deployments.batches.storage import open_storage
from deployments.client_headers import ClientHeaders
from deployments.gateway.accounts import Account
from deployments.gateway.app import GatewayApp, Traffic
from deployments.gateway.bodies import TextBody
from deployments.gateway.booking import Ledger
from deployments.gateway.building import build_gateway
from deployments.gateway.handle import Gateway
from deployments.gateway.metrics_page import Peers
from deployments.gateway.model import Model
from deployments.gateway.pages import Surroundings, build_pages
from deployments.gateway.parts import Enricher
from deployments.gateway.prompts import PromptEncoder
from deployments.gateway.readiness import Answers
from deployments.gateway.request import Header
from deployments.gateway.responses import Responses
from deployments.gateway.sockets import KvEventFeed, WebSocketTransport
from deployments.gateway.stored_responses import MemoryResponses
from deployments.gateway.tracing.tracer import Shipping
from deployments.gateway.transport import CacheFeed
from deployments.listener import Listener, ReplicaApp
from deployments.role_page import PATH, RolePage
from deployments.roles import RoleKeeper
from deployments.streams import Generator, TokenStreams
from deployments.testing.scripted import ScriptedGenerator
from features.enrichment import Enrichment
from router.types import ReplicaInfo, Role
from weir.database import migrate, open_database
from weir.metrics import GatewayMetrics
from weir.settings import Settings
from weir.tenancy import LiveDirectory, Tenant

TOKEN = "internal"
KEY = "weir_test-key"


class PlainEnricher:
    """Prompts stay as they came."""

    def begin(self, tenant: Tenant, body: TextBody, header: Header) -> _Plain:
        """Look nothing up."""
        return _Plain(body)


class _Plain:
    def __init__(self, body: TextBody) -> None:
        self._body = body

    async def finish(self) -> Enrichment[TextBody]:
        """The same body."""
        return Enrichment(self._body)


@dataclass
class Replica:
    """A replica's front end around a generator."""

    name: str
    generator: Any
    streams: TokenStreams
    app: ReplicaApp
    listener: Listener
    max_model_len: int = 64
    tasks: frozenset[str] = frozenset({"generate"})
    role: Role = "mixed"
    kv_blocks_total: int = 100
    block_size: int = 16
    changes_role: bool = False
    pool: str = ""

    @property
    def info(self) -> ReplicaInfo:
        """As Serve would announce it."""
        return ReplicaInfo(
            self.name,
            address=self.listener.address,
            kv_blocks_total=self.kv_blocks_total,
            block_size=self.block_size,
            max_model_len=self.max_model_len,
            tasks=self.tasks,
            role=self.role,
            changes_role=self.changes_role,
            pool=self.pool,
        )


class World:
    """The gateway under test, its replicas, and the HTTP client in front. The first model of the
    settings is ``model``; its student, if it has one, ``student``."""

    def __init__(
        self, gateway: Gateway, settings: Settings, session: aiohttp.ClientSession
    ) -> None:
        first = settings.models[0]
        self.gateway = gateway
        self.responses = memory_responses(gateway, settings)
        self.model: Model = gateway.models[first.name]
        self.student = gateway.models[first.fallback.student] if first.fallback else None
        self.session = session
        self.replicas: list[Replica] = []
        self.batches: Batches | None = None
        self._telling: list[asyncio.Task[None]] = []
        #: What new replicas answer for ``/health`` and ``/metrics``.
        self.probes: Any = _no_metrics
        self.url = ""

    async def add_replica(
        self, name: str, generator: Generator | None = None, of: str | None = None, **details: Any
    ) -> Replica:
        """A new replica of the model, or of that with the name ``of``, announced. A ``silent`` one
        does not repeat its load."""
        model = self.model if of is None else self.gateway.models[of]
        return await self._add(model, name, generator, details)

    async def add_student_replica(self, name: str) -> Replica:
        """A new replica of the student, announced."""
        assert self.student is not None
        return await self._add(self.student, name, None, {})

    async def _add(
        self, model: Model, name: str, generator: Generator | None, details: dict[str, Any]
    ) -> Replica:
        made = generator or ScriptedGenerator()
        changes = details.get("changes_role", False)
        roles = RoleKeeper(details.get("role", "mixed"), changes, least_s=0.0)
        streams = TokenStreams(made, roles)
        app = ReplicaApp(self.probes, streams, TOKEN, {PATH: RolePage(roles)})
        listener = Listener(app, "127.0.0.1")
        await listener.start()
        if not details.pop("silent", False):
            self._telling.append(asyncio.create_task(streams.tell_load_forever()))
        replica = Replica(name, made, streams, app, listener, **details)
        self.replicas.append(replica)
        model.router.set_replicas((*model.router.members, replica.info))
        await model.fleet.connection(name)
        return replica

    def post(self, body: dict[str, Any], path: str = "/v1/chat/completions", **headers: str) -> Any:
        """A request of the tenant; ``id`` in the body becomes its request id."""
        told = {"authorization": f"Bearer {KEY}", "x-request-id": body.pop("id", "r1"), **headers}
        body = {"model": self.model.name, **body}
        return self.session.post(self.url + path, json=body, headers=told)

    async def close(self) -> None:
        """End the models, the replicas and what tells their load."""
        for model in self.gateway.models.values():
            await model.close()
        for telling in self._telling:
            telling.cancel()
        await asyncio.gather(*self._telling, return_exceptions=True)
        for replica in self.replicas:
            await replica.listener.stop()

    def outstanding(self) -> int:
        """Requests that the model's router thinks are under way."""
        return sum(v.load.requests for v in self.model.router.snapshot().replicas)


@asynccontextmanager
async def http_world(
    settings: Settings,
    encoders: Mapping[str, PromptEncoder],
    enricher: Enricher | None = None,
    feed: CacheFeed | None = None,
    services: Mapping[str, Answers] | None = None,
    ledger: Ledger | None = None,
    files: Path | None = None,
    directory: LiveDirectory | None = None,
    describe: Callable[[], dict[str, Any]] = dict,
    account: Account | None = None,
    shipping: Shipping | None = None,
    peers: Peers | None = None,
) -> AsyncIterator[World]:
    """A world over real sockets, without replicas yet. ``files``: a folder for files and batches,
    where there are to be any."""
    async with aiohttp.ClientSession() as session:
        gateway = build_gateway(
            settings,
            encoders,
            WebSocketTransport(session, TOKEN),
            feed or KvEventFeed(),
            enricher or PlainEnricher(),
            GatewayMetrics(CollectorRegistry(), settings.server.metrics.max_tenants),
            ledger=ledger,
            directory=directory,
            account=account,
            shipping=shipping,
        )
        world = World(gateway, settings, session)
        traffic = Traffic()
        if files is not None:
            world.batches = batches_in(files, settings, gateway, traffic)
        around = Surroundings(
            session,
            TOKEN,
            settings.server.metrics,
            _deployment,
            services or {},
            describe,
            world.batches,
            peers,
        )
        pages = build_pages(gateway, world.responses, around)
        app = CancelOnDisconnect(GatewayApp(gateway, world.responses, pages, traffic))
        front = Listener(ClientHeaders(Ingress(app)), "127.0.0.1")
        await front.start()
        world.url = f"http://{front.address}"
        try:
            yield world
        finally:
            await front.stop()
            if world.batches is not None:
                await world.batches.aclose()
            await world.responses.aclose()
            await world.close()


def batches_in(folder: Path, settings: Settings, gateway: Gateway, traffic: Traffic) -> Batches:
    """Files and batches with database and storage in a folder, which several gateways may share."""
    folder.mkdir(exist_ok=True)
    engine = open_database(f"sqlite:///{folder / 'weir.db'}")
    migrate(engine)
    storage = open_storage(str(folder / "files"))
    batches = Batches(gateway, settings, engine, storage, lambda: traffic.requests)
    batches.runner.start()
    return batches


def memory_responses(gateway: Gateway, settings: Settings) -> Responses:
    """Responses that are kept in this process."""
    clock = asyncio.get_running_loop().time
    return Responses(gateway, MemoryResponses(settings.responses, clock), settings.responses)


class CancelOnDisconnect:
    """What Serve's ingress does around the app: the client's leaving cancels the request."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

        async def read() -> None:
            while True:
                event = await receive()
                await events.put(event)
                if event["type"] == "http.disconnect":
                    return

        reader = asyncio.ensure_future(read())
        work = asyncio.ensure_future(self._app(scope, events.get, send))
        await asyncio.wait([reader, work], return_when=asyncio.FIRST_COMPLETED)
        for task in (work, reader):
            if not task.done():
                task.cancel()
        await asyncio.gather(work, reader, return_exceptions=True)


class Ingress:
    """What else Serve's ingress does: it answers health checks, names each request that comes
    without a name, and tells the client."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._requests = 0

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["path"] == "/-/healthz":
            await _no_metrics(scope, receive, send)
            return
        given = dict(scope["headers"]).get(b"x-request-id")
        if given is None:
            self._requests += 1
            given = b"ingress-%d" % self._requests
            scope["headers"] = [*scope["headers"], (b"x-request-id", given)]

        async def named(event: dict[str, Any]) -> None:
            if event["type"] == "http.response.start":
                event["headers"] = [*event["headers"], (b"x-request-id", given)]
            await send(event)

        await self._app(scope, receive, named)


async def _no_metrics(scope: dict[str, Any], receive: Any, send: Any) -> None:
    body = json.dumps({"status": "ok"}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _deployment() -> list[dict[str, Any]]:
    return [
        {"name": "model-m", "app": "weir", "status": "HEALTHY", "replica_states": {"RUNNING": 1}}
    ]
