"""The gateway as a Ray Serve deployment, and the function that puts its parts together."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import sys
import time
from collections.abc import Mapping
from typing import Any

import aiohttp
import ray
from ray import serve
from ray.exceptions import RayError
from redis.asyncio import Redis
from redis.exceptions import RedisError

from deployments.batches.building import build_batches
from deployments.cluster import serving_gateways
from deployments.control_server import ADDRESS_VARIABLE
from deployments.gateway.accounts.building import redis_account, redis_store
from deployments.gateway.app import GatewayApp, Traffic
from deployments.gateway.board import BoardWriter
from deployments.gateway.building import build_gateway
from deployments.gateway.demand import Answered, DemandTeller
from deployments.gateway.enrichment import build_enricher
from deployments.gateway.feature_store import platform_redis_url
from deployments.gateway.fleet import ReplicaChooser
from deployments.gateway.forwarding import ControlDoor
from deployments.gateway.ledger import open_ledger
from deployments.gateway.memory import give_back_large_blocks
from deployments.gateway.metrics_page import Peers, only_metrics
from deployments.gateway.pages import Surroundings, build_pages
from deployments.gateway.prompts import PromptEncoder, locate_tokenizer
from deployments.gateway.responses import Responses
from deployments.gateway.role_changes import Replicas
from deployments.gateway.role_splits import RoleSplits
from deployments.gateway.sockets import KvEventFeed, WebSocketTransport
from deployments.gateway.stored_responses import (
    MemoryResponses,
    RedisResponses,
    SharedResponses,
)
from deployments.gateway.tenants import build_watch, describe_directory
from deployments.gateway.tracing.building import build_shipper
from deployments.listener import Listener
from deployments.pools import pools_of, scales
from deployments.served import ServedReplica, served_replicas
from deployments.sources import model_source
from weir import __version__
from weir.adapters import adapter_digests
from weir.errors import OverloadedError
from weir.logs import configure_logging
from weir.metrics import GatewayMetrics
from weir.settings import Settings
from weir.tenancy import Directory, LiveDirectory

_PING_TIMEOUT_S = 1.0

_SWITCH_S = 0.001


class GatewayReplica:
    """One gateway process.

    ``settings`` is the whole validated tree, ``handles`` has Serve's handle of each
    deployment of a model, by its name.
    """

    async def __init__(  # type: ignore[misc]  # Serve awaits constructors
        self, settings: Settings, handles: dict[str, ReplicaChooser]
    ) -> None:
        configure_logging(settings.log)
        # While a thread reads a long prompt, the event loop waits so long for the interpreter's
        # lock each time that it needs it.
        sys.setswitchinterval(_SWITCH_S)
        give_back_large_blocks()
        self._token = os.environ.get("WEIR_INTERNAL_TOKEN", "")
        self._session = _session()
        self._processes = settings.gateway.processes
        self._gateways = settings.gateway.replicas
        self._metrics_settings = settings.server.metrics
        self._metrics_port = settings.gateway.metrics_port
        self._metrics_door: Listener | None = None
        metrics = GatewayMetrics(most_tenants=settings.server.metrics.max_tenants)
        metrics.info.labels(__version__).set(1)
        loop = asyncio.get_running_loop()
        live = LiveDirectory(Directory.of(settings.tenants), time.time)
        self._watch = build_watch(settings, os.environ, live, metrics)
        if self._watch is not None:
            await loop.run_in_executor(None, self._watch.begin)
        answered = Answered()
        self._build(settings, metrics, live, answered)
        self._kept = SharedResponses(
            RedisResponses(self._redis, settings.responses),
            MemoryResponses(settings.responses, loop.time),
        )
        self._responses = Responses(self._gateway, self._kept, settings.responses)
        address = os.environ.get(ADDRESS_VARIABLE)
        self._control = ControlDoor(address, self._gateway.intake.room) if address else None
        if settings.features.enabled:
            self._enricher.start()
        self._traffic = Traffic()
        self._batches = build_batches(
            settings, os.environ, self._gateway, lambda: self._traffic.requests
        )
        if self._batches is not None:
            self._batches.runner.start()
        self._tasks = self._begin(settings, handles, metrics, answered)
        if self._ledger is not None:
            self._ledger.start(self._gateway.models.values(), _served_replicas)

    def _build(
        self, settings: Settings, metrics: GatewayMetrics, live: LiveDirectory, answered: Answered
    ) -> None:
        """The gateway, and what it is connected to."""
        self._enricher = build_enricher(settings, metrics, os.environ)
        self._accounts = redis_store(settings, os.environ, metrics)
        self._accounts.start()
        self._redis = Redis.from_url(platform_redis_url(settings, os.environ))
        self._ledger = open_ledger(settings, os.environ, self._redis, metrics, time.time)
        self._shipper = build_shipper(settings.tracing, metrics)
        self._gateway = build_gateway(
            settings,
            _encoders(settings),
            WebSocketTransport(self._session, self._token),
            KvEventFeed(),
            self._enricher,
            metrics,
            digests=adapter_digests(settings),
            directory=live,
            account=redis_account(self._accounts),
            ledger=self._ledger,
            shipping=self._shipper,
            answered=answered,
        )

    def _begin(
        self,
        settings: Settings,
        handles: Mapping[str, ReplicaChooser],
        metrics: GatewayMetrics,
        answered: Answered,
    ) -> list[asyncio.Task[None]]:
        """What runs until the gateway ends: it follows replicas and tells others what it sees."""
        loop, gateway, redis = asyncio.get_running_loop(), self._gateway, self._redis
        tasks = [
            loop.create_task(model.fleet.follow(handles[pool.deployment], pool.name))
            for model in gateway.models.values()
            for pool in pools_of(model.settings)
        ]
        name = f"{os.uname().nodename}-{os.getpid()}-{secrets.token_hex(4)}"
        tasks.append(loop.create_task(BoardWriter(gateway, redis, name, time.time).run()))
        tasks.append(loop.create_task(gateway.rollouts.run(gateway, redis)))
        if scales(settings):
            fallbacks = gateway.parts.fallbacks
            surpluses = {n: each.surplus for n, each in fallbacks.items() if each.surplus}
            teller = DemandTeller(gateway.models, answered, redis, time.time, metrics, surpluses)
            tasks.append(loop.create_task(teller.run()))
        if any(pool.splits for each in settings.models for pool in pools_of(each)):
            splits = RoleSplits(
                gateway.models, Replicas(self._session, self._token), redis, loop.time
            )
            tasks.append(loop.create_task(splits.run()))
        return tasks

    async def __serve_build_asgi_app__(self) -> Any:
        """Serve calls this after the constructor and serves what it returns."""
        around = Surroundings(
            self._session,
            self._token,
            self._metrics_settings,
            _deployment_states,
            {"Redis": self._redis_answers},
            self._describe_directory,
            self._batches,
            self._peers(),
            self._gateways,
        )
        pages = build_pages(self._gateway, self._responses, around)
        if self._metrics_port is not None:
            host = ray.util.get_node_ip_address()
            self._metrics_door = Listener(only_metrics(pages), host, self._metrics_port)
            await self._metrics_door.start()
        return GatewayApp(self._gateway, self._responses, pages, self._traffic, self._control)

    def _peers(self) -> Peers:
        own = serve.get_replica_context().replica_id
        return Peers(
            _short_name(own.to_full_id_str()),
            _gateways,
            self._processes,
            None if self._control is None else self._control.metrics,
            {"Redis": self._redis_answers},
            _deployment_states,
        )

    def _describe_directory(self) -> dict[str, Any]:
        if self._watch is None:
            return {}
        return describe_directory(self._gateway.directory, self._watch)

    async def _redis_answers(self) -> bool:
        with contextlib.suppress(RedisError, OSError, TimeoutError):
            async with asyncio.timeout(_PING_TIMEOUT_S):
                pong: Any = self._redis.ping()
                return bool(await pong)
        return False

    async def __del__(self) -> None:
        if self._metrics_door is not None:
            await self._metrics_door.stop()
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        if self._batches is not None:
            await self._batches.aclose()
        await self._responses.aclose()
        await self._enricher.close()
        for model in self._gateway.models.values():
            await model.close()
        if self._control is not None:
            await self._control.close()
        if self._ledger is not None:
            await self._ledger.close()
        await self._kept.aclose()
        if self._shipper is not None:
            await asyncio.get_running_loop().run_in_executor(None, self._shipper.close)
        await self._accounts.aclose()
        if self._watch is not None:
            await asyncio.get_running_loop().run_in_executor(None, self._watch.stop)
        await self._session.close()


def _session() -> aiohttp.ClientSession:
    """To replicas. It bounds neither how long they take nor how many connections there are."""
    return aiohttp.ClientSession(
        timeout=aiohttp.ClientTimeout(total=None, connect=5.0),
        connector=aiohttp.TCPConnector(limit=0),
        auto_decompress=False,
    )


def _encoders(settings: Settings) -> Mapping[str, PromptEncoder]:
    return {
        model.name: PromptEncoder(
            locate_tokenizer(model_source(model.source, settings.registry.url)),
            model.prompts.special_tokens,
        )
        for model in settings.models
    }


def _short_name(replica: str) -> str:
    """A gateway's name in its metrics: the part of its name in Serve that is its own."""
    return replica.rpartition("#")[2]


async def _gateways() -> dict[str, str]:
    """Where all gateways are, by name; empty while Serve's controller does not answer."""
    try:
        targets = await asyncio.get_running_loop().run_in_executor(None, serving_gateways)
    except (RayError, ValueError):
        return {}
    return {_short_name(target.name): f"{target.host}:{target.port}" for target in targets}


async def _served_replicas() -> list[ServedReplica] | None:
    """All replicas, for the ledger; None while Serve's controller does not answer."""
    try:
        return await asyncio.get_running_loop().run_in_executor(None, served_replicas)
    except (RayError, ValueError):
        return None


async def _deployment_states() -> list[dict[str, Any]]:
    try:
        status = await asyncio.get_running_loop().run_in_executor(None, serve.status)
    except RayError:
        raise OverloadedError("Serve's controller does not answer now.") from None
    return [
        {
            "name": name,
            "app": app_name,
            "status": str(deployment.status.value),
            "message": deployment.message,
            "replica_states": {str(s): n for s, n in deployment.replica_states.items() if n},
        }
        for app_name, app in status.applications.items()
        for name, deployment in app.deployments.items()
    ]
