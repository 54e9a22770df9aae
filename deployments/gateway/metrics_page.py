"""``/metrics``: the whole platform's figures, whichever gateway is asked.

A load balancer sends Prometheus to another gateway each time, so each of them tells of all: every
gateway's own figures with the label ``gateway``, every engine's with the label ``replica``, and
once what all gateways see alike. Nothing is in it twice, and sums over it are the platform's.
``/metrics/gateway`` has the asked gateway's own only: the gateways ask each other for it.

Where Prometheus asks each gateway by itself (pods, without a load balancer before them), the path
is ``/metrics/part``: the gateway's own figures, and from the first of the gateways everything else.
All parts together are the whole.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from fastapi import FastAPI, Request, Response
from fastapi.responses import PlainTextResponse

from deployments.gateway.callers import Callers
from deployments.gateway.exposition import families, labelled, merged
from deployments.gateway.gauges import set_own_gauges, set_part_gauges, set_shared_gauges
from deployments.gateway.handle import Gateway
from deployments.gateway.openmetrics import OLDER, Form, form_for
from deployments.gateway.readiness import Answers, DeploymentStates
from deployments.listener import App, answer

_LOG = logging.getLogger("weir.gateway")
_SCRAPE_TIMEOUT_S = 2.0
_ENGINES = ("vllm:", "weir_kv_tier_")
OWN_PATH = "/metrics/gateway"
PART_PATH = "/metrics/part"
PATHS = ("/metrics", OWN_PATH, PART_PATH)
_WATCHED = (*PATHS, "/ready", "/health")


async def _nobody() -> Mapping[str, str]:
    return {}


@dataclass(frozen=True, slots=True)
class Peers:
    """The platform's other processes as the metrics' page reaches them.

    ``name``: this gateway's (empty: it is alone, and its figures carry no ``gateway``).
    ``gateways``: ``host:port`` of all, by name. ``wanted``: how many there should be. ``control``:
    the control process' exposition; None where it cannot be asked. ``services``, ``states``: see
    :func:`deployments.gateway.readiness.add_health`.
    """

    name: str = ""
    gateways: Callable[[], Awaitable[Mapping[str, str]]] = _nobody
    wanted: int = 1
    control: Callable[[], Awaitable[str | None]] | None = None
    services: Mapping[str, Answers] = field(default_factory=dict)
    states: DeploymentStates | None = None


def add_metrics(
    app: FastAPI,
    gateway: Gateway,
    callers: Callers,
    session: aiohttp.ClientSession,
    token: str = "",
    peers: Peers | None = None,
) -> None:
    """Both pages. They name tenants and what they use, so they are not for strangers. ``token``:
    the platform's own, with which gateways ask each other."""
    page = MetricsPage(gateway, session, token, peers or Peers())

    @app.get(
        "/metrics",
        tags=["platform"],
        summary="Prometheus metrics: every gateway's by gateway, every engine's by replica",
        response_class=PlainTextResponse,
        responses={401: {"description": "No key of `server.metrics`."}},
    )
    async def metrics(request: Request) -> Response:
        callers.require_watcher(request)
        form = form_for(request.headers.get("accept"))
        return Response(await page.whole(form), media_type=form.media_type)

    @app.get(
        OWN_PATH,
        tags=["platform"],
        summary="Prometheus metrics: those of this gateway alone",
        response_class=PlainTextResponse,
        responses={401: {"description": "No key of `server.metrics`."}},
    )
    async def own_metrics(request: Request) -> Response:
        callers.require_watcher(request)
        form = form_for(request.headers.get("accept"))
        return Response(await page.own(form) + form.end, media_type=form.media_type)

    @app.get(
        PART_PATH,
        tags=["platform"],
        summary="Prometheus metrics: this gateway's part; all gateways' parts are the whole",
        response_class=PlainTextResponse,
        responses={401: {"description": "No key of `server.metrics`."}},
    )
    async def part_of_metrics(request: Request) -> Response:
        callers.require_watcher(request)
        form = form_for(request.headers.get("accept"))
        return Response(await page.part(form), media_type=form.media_type)


def only_metrics(pages: Any) -> App:
    """ASGI: of ``pages``, those that watch the platform; for a port of their own."""

    async def watched(scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        if scope["path"] in _WATCHED:
            await pages(scope, receive, send)
        else:
            await answer(send, 404, b"this port has only /metrics, /ready and /health\n")

    return watched


class MetricsPage:
    """What the pages say. Texts are made in a thread: with many tenants that takes a while."""

    def __init__(
        self, gateway: Gateway, session: aiohttp.ClientSession, token: str, peers: Peers
    ) -> None:
        self._gateway = gateway
        self._session = session
        self._headers = {"authorization": f"Bearer {token}"}
        self._peers = peers
        # Gauges are cleared and set again: two at once would find them half set.
        self._lock = asyncio.Lock()
        gateway.metrics.gateways_wanted.set(peers.wanted)

    async def own(self, form: Form = OLDER) -> str:
        """This gateway's own figures, without the end of the page."""
        loop = asyncio.get_running_loop()
        async with self._lock:
            set_own_gauges(self._gateway)
            return await loop.run_in_executor(None, self._own_text, form)

    def _own_text(self, form: Form) -> str:
        text = form.write(self._gateway.metrics.registry)
        return labelled(text, {"gateway": self._peers.name} if self._peers.name else {})

    async def part(self, form: Form = OLDER) -> str:
        """This gateway's own; with everything else, if it is the first of the gateways."""
        known = await self._peers.gateways()
        if self._peers.name != min(known, default=self._peers.name):
            return await self.own(form) + form.end
        return await self._told(dict.fromkeys(known, ""), form)

    async def whole(self, form: Form = OLDER) -> str:
        """The platform's."""
        return await self._told(await self._others(form), form)

    async def _told(self, others: Mapping[str, str | None], form: Form) -> str:
        """``others``: what the other gateways tell; None: nothing, it does not answer."""
        own, engines, control, _ = await asyncio.gather(
            self.own(form), self._engines(), self._control(), self._parts()
        )
        loop = asyncio.get_running_loop()
        async with self._lock:
            set_shared_gauges(self._gateway)
            self._set_up(others, engines, control)
            return await loop.run_in_executor(
                None, self._merged, form, [own, *others.values()], engines, control
            )

    def _merged(
        self,
        form: Form,
        gateways: list[str | None],
        engines: Mapping[tuple[str, str], str | None],
        control: str | None,
    ) -> str:
        shared = form.write(self._gateway.metrics.shared)
        known = [form.read(text) for text in (*gateways, control) if text]
        of_engines = {replica: text for (_, replica), text in engines.items() if text}
        whole = merged(map(families, [shared, *known]))
        return whole + form.read(merge_engines(of_engines)) + form.end

    def _set_up(
        self,
        others: Mapping[str, str | None],
        engines: Mapping[tuple[str, str], str | None],
        control: str | None,
    ) -> None:
        metrics = self._gateway.metrics
        metrics.gateway_up.clear()
        for name, text in others.items():
            metrics.gateway_up.labels(name).set(text is not None)
        metrics.gateway_up.labels(self._peers.name).set(1)
        metrics.engine_up.clear()
        for labels, text in engines.items():
            metrics.engine_up.labels(*labels).set(text is not None)
        if self._peers.control is not None:
            metrics.part_up.labels("control").set(control is not None)

    async def _parts(self) -> None:
        if self._peers.states is not None:
            await set_part_gauges(self._gateway, self._peers.services, self._peers.states)

    async def _control(self) -> str | None:
        return None if self._peers.control is None else await self._peers.control()

    async def _others(self, form: Form) -> dict[str, str | None]:
        known = await self._peers.gateways()
        others = {name: at for name, at in known.items() if name != self._peers.name}
        headers = {**self._headers, "accept": form.media_type}
        ask = (self._read(f"http://{at}{OWN_PATH}", headers) for at in others.values())
        texts = await asyncio.gather(*ask)
        return dict(zip(others, texts, strict=True))

    async def _engines(self) -> dict[tuple[str, str], str | None]:
        targets = {
            (model.name, info.replica_id): info.address
            for model in self._gateway.models.values()
            for info in model.router.members
        }
        ask = (self._read(f"http://{at}/metrics", {}) for at in targets.values())
        texts = await asyncio.gather(*ask)
        return dict(zip(targets, texts, strict=True))

    async def _read(self, url: str, headers: Mapping[str, str]) -> str | None:
        """None: it does not answer."""
        timeout = aiohttp.ClientTimeout(total=_SCRAPE_TIMEOUT_S)
        try:
            async with self._session.get(url, headers=headers, timeout=timeout) as response:
                text = await response.text()
                return text if response.status == 200 else None
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            _LOG.info("no metrics", extra={"url": url, "reason": str(error)})
            return None


def merge_engines(by_replica: Mapping[str, str]) -> str:
    """The engines' metrics as one exposition, told apart by a ``replica`` label."""
    return merged(
        {
            name: (head, labelled(samples, {"replica": replica_id}))
            for name, (head, samples) in families(text, _ENGINES).items()
        }
        for replica_id, text in by_replica.items()
    )
