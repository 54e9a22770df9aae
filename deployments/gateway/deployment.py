"""The gateway as a Ray Serve deployment: puts the parts together inside a replica."""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import Any

import aiohttp
from ray import serve

from deployments.gateway.app import GatewayApp
from deployments.gateway.enrichment import build_enricher
from deployments.gateway.gateway import Gateway, Limits
from deployments.gateway.models import ReplicaChooser, ServedModel
from deployments.gateway.pages import build_pages
from deployments.gateway.prompts import PromptEncoder, locate_tokenizer
from deployments.gateway.relay import OpenAIRelay
from deployments.gateway.replicas import ReplicaConnections
from deployments.gateway.steps import UnlimitedQuota
from deployments.sources import model_source
from router.admission import parse_settings
from weir.logs import configure_logging
from weir.metrics import GatewayMetrics
from weir.settings import ModelSettings, Settings
from weir.tenancy import KeyRing


class GatewayReplica:
    """One gateway process.

    ``settings`` is the whole validated tree, ``handles`` has Serve's handle of each model.
    """

    async def __init__(  # type: ignore[misc]  # Serve awaits constructors
        self, settings: Settings, handles: dict[str, ReplicaChooser]
    ) -> None:
        configure_logging(settings.log)
        self._settings = settings
        token = os.environ.get("WEIR_INTERNAL_TOKEN", "")
        self._token = token
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=None, connect=5.0),
            connector=aiohttp.TCPConnector(limit=0),
            auto_decompress=False,
        )
        self._admission = parse_settings(settings.admission)
        metrics = GatewayMetrics()
        self._enricher = build_enricher(settings, metrics, os.environ)
        models = {m.name: self._served(m, handles[m.name], token) for m in settings.models}
        self._gateway = Gateway(
            keys=KeyRing(settings.tenants),
            models=models,
            quota=UnlimitedQuota(),
            enricher=self._enricher,
            classes=[c.name for c in self._admission.classes],
            relay=OpenAIRelay(self._session, token),
            metrics=metrics,
            limits=Limits(
                settings.server.max_body_bytes,
                settings.gateway.dispatch_attempts,
                settings.server.request_timeout_s,
            ),
            tenants=settings.tenants,
            slo_s={c.name: c.ttft_slo_ms / 1000 for c in self._admission.classes if c.ttft_slo_ms},
        )
        if settings.features.enabled:
            self._enricher.start()
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(m.follow_replicas()) for m in models.values()]
        self._tasks += [loop.create_task(watch) for watch in self._gateway.spills.watchers()]

    async def __serve_build_asgi_app__(self) -> Any:
        """Serve calls this after the constructor and serves what it returns."""
        pages = build_pages(self._gateway, self._session, self._token, _deployment_states)
        return GatewayApp(self._gateway, pages)

    async def __del__(self) -> None:
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await self._enricher.close()
        for model in self._gateway.models.values():
            await model.close()
        await self._session.close()

    def _served(self, model: ModelSettings, handle: ReplicaChooser, token: str) -> ServedModel:
        encoder = PromptEncoder(
            locate_tokenizer(model_source(model.source, self._settings.registry.url))
        )
        served = ServedModel(model, self._admission, encoder, handle)
        load, step = served.record_load, served.router.stepped
        served.connect_through(ReplicaConnections(self._session, token, load, step))
        return served


async def _deployment_states() -> list[dict[str, Any]]:
    status = await asyncio.get_running_loop().run_in_executor(None, serve.status)
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
