"""``/metrics``: the gateway's own figures, and those of its engines by replica."""

from __future__ import annotations

import asyncio
import logging
import re

import aiohttp
from fastapi import FastAPI, Request, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from deployments.gateway import openmetrics
from deployments.gateway.callers import Callers
from deployments.gateway.handle import Gateway

_LOG = logging.getLogger("weir.gateway")
_SCRAPE_TIMEOUT_S = 2.0


def add_metrics(
    app: FastAPI, gateway: Gateway, callers: Callers, session: aiohttp.ClientSession
) -> None:
    """``/metrics``, which names tenants and what they use: not for strangers."""

    @app.get(
        "/metrics",
        tags=["platform"],
        summary="Prometheus metrics: the gateway's own, and those of its engines by replica",
        response_class=PlainTextResponse,
        responses={401: {"description": "No key of `server.metrics`."}},
    )
    async def metrics(request: Request) -> Response:
        callers.require_watcher(request)
        _set_gauges(gateway)
        engines = await _scrape_engines(gateway, session)
        registry = gateway.metrics.registry
        if openmetrics.wants_openmetrics(request.headers.get("accept")):
            page = openmetrics.openmetrics_page(registry, engines)
            return Response(page, media_type=openmetrics.CONTENT_TYPE)
        own = generate_latest(registry).decode()
        return Response(own + engines, media_type=CONTENT_TYPE_LATEST)


def _set_gauges(gateway: Gateway) -> None:
    _set_usage(gateway)
    _set_adapters(gateway)
    _set_roles(gateway)
    for model in gateway.models.values():
        members = model.router.members
        gateway.metrics.replicas.labels(model.name).set(len(members))
        views = model.router.snapshot().replicas
        outstanding = sum(view.load.outstanding_tokens for view in views)
        gateway.metrics.outstanding.labels(model.name).set(outstanding)
        for stats in model.dispatcher.queue.stats():
            gateway.metrics.waiting.labels(model.name, stats.name).set(stats.waiting)
        blocks = sum(model.router.index.blocks(info.replica_id) for info in members)
        gateway.metrics.indexed_blocks.labels(model.name).set(blocks)
        error = model.router.latency.error()
        errors = {"ttft": error.ttft_relative, "tpot": error.tpot_relative}
        for quantity, value in errors.items():
            gateway.metrics.latency_error.labels(model.name, quantity).set(value)


def _set_adapters(gateway: Gateway) -> None:
    gauge = gateway.metrics.adapter_loads
    gauge.clear()  # replicas come and go
    for model in gateway.models.values():
        for replica_id, loads in model.router.adapters.loads().items():
            gauge.labels(model.name, replica_id).set(loads)


def _set_roles(gateway: Gateway) -> None:
    gauge = gateway.metrics.replicas_by_role
    gauge.clear()  # replicas come and go
    for model in gateway.models.values():
        for info in model.router.members:
            if info.pool:
                gauge.labels(model.name, info.pool, info.role).inc()
        for role, count in model.fleet.role_changes.items():
            gateway.metrics.role_changes.labels(model.name, role).set(count)


def _set_usage(gateway: Gateway) -> None:
    metrics = gateway.metrics
    metrics.replica_mfu.clear()  # replicas come and go
    metrics.replica_mbu.clear()
    for model in gateway.models.values():
        for view in model.router.snapshot().replicas:
            if view.stats.mfu is not None and view.stats.mbu is not None:
                metrics.replica_mfu.labels(model.name, view.replica_id).set(view.stats.mfu)
                metrics.replica_mbu.labels(model.name, view.replica_id).set(view.stats.mbu)


async def _scrape_engines(gateway: Gateway, session: aiohttp.ClientSession) -> str:
    targets = [
        (info.replica_id, info.address)
        for model in gateway.models.values()
        for info in model.router.members
    ]
    texts = await asyncio.gather(*(_scrape(session, address) for _, address in targets))
    return merge_metrics({rid: text for (rid, _), text in zip(targets, texts, strict=True)})


async def _scrape(session: aiohttp.ClientSession, address: str) -> str:
    timeout = aiohttp.ClientTimeout(total=_SCRAPE_TIMEOUT_S)
    try:
        async with session.get(f"http://{address}/metrics", timeout=timeout) as response:
            return await response.text()
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        _LOG.info("replica gave no metrics", extra={"address": address, "reason": str(error)})
        return ""


_ENGINES = ("vllm:", "weir_kv_tier_")
_SAMPLE = re.compile(r"^((?:vllm:|weir_kv_tier_)[A-Za-z0-9_:]+)(?:\{(.*)\})? (.+)$")


def merge_metrics(by_replica: dict[str, str]) -> str:
    """The engines' metrics as one exposition, told apart by a ``replica`` label."""
    families: dict[str, list[str]] = {}
    family = ""
    for replica_id, text in by_replica.items():
        for line in text.splitlines():
            if line.startswith("#"):
                family = line.split(" ", 3)[2] if line.count(" ") >= 2 else ""
                if family.startswith(_ENGINES):
                    lines = families.setdefault(family, [])
                    if line not in lines:
                        lines.append(line)
            elif (match := _SAMPLE.match(line)) and family in families:
                name, labels, value = match.groups()
                joined = f'replica="{replica_id}"' + (f",{labels}" if labels else "")
                families[family].append(f"{name}{{{joined}}} {value}")
    return "".join(line + "\n" for lines in families.values() for line in lines)
