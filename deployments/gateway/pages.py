"""Everything beside the request path: models, health, readiness, metrics, status, API docs."""

from __future__ import annotations

import asyncio
import datetime as dt
import hmac
import logging
import re
import time
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import HTTPException, RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException as StarletteHTTPException

from deployments.gateway.api_docs import describe_api
from deployments.gateway.dialects.message_writer import error_body as message_error
from deployments.gateway.handle import Gateway
from deployments.gateway.model import Model
from deployments.gateway.response_pages import add_responses
from deployments.gateway.responses import Responses
from deployments.names import model_deployment
from weir import __version__
from weir.errors import (
    AuthenticationError,
    BadRequestError,
    MethodNotAllowedError,
    NoReplicaError,
    NotFoundError,
    WeirError,
    error_body,
    error_headers,
)
from weir.tenancy import Tenant, model_not_found

_LOG = logging.getLogger("weir.gateway")
_SCRAPE_TIMEOUT_S = 2.0

DeploymentStates = Callable[[], Awaitable[list[dict[str, Any]]]]


def build_pages(
    gateway: Gateway,
    responses: Responses,
    session: aiohttp.ClientSession,
    internal_token: str,
    deployment_states: DeploymentStates,
) -> FastAPI:
    """The FastAPI app behind every path but those of the request path."""
    app = FastAPI(title="weir", version=__version__, docs_url="/docs", redoc_url=None)
    _add_errors(app)
    _add_health(app, gateway)
    _add_models(app, gateway)
    add_responses(app, responses)
    _add_metrics(app, gateway, session)
    _add_status(app, gateway, internal_token, deployment_states)
    app.openapi = lambda: describe_api(app)  # type: ignore[method-assign]
    return app


def _add_errors(app: FastAPI) -> None:
    def render(request: Request, error: WeirError) -> JSONResponse:
        body = message_error(error) if _is_anthropics(request) else error_body(error)
        return JSONResponse(body, error.status, headers=error_headers(error))

    async def on_weir_error(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, WeirError)
        return render(request, error)

    async def on_http_error(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException | StarletteHTTPException)
        path = request.url.path
        if error.status_code == 405:
            refusal = MethodNotAllowedError(f"{request.method} is not allowed on {path}.")
            response = render(request, refusal)
            response.headers["allow"] = (error.headers or {}).get("allow", "GET")
            return response
        if error.status_code == 404:
            return render(request, NotFoundError(f"There is nothing at {path}."))
        return render(request, BadRequestError(str(error.detail)))

    async def on_invalid(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"][1:])
        return render(request, BadRequestError(f"{field}: {first['msg']}.", param=field))

    app.add_exception_handler(WeirError, on_weir_error)
    app.add_exception_handler(StarletteHTTPException, on_http_error)
    app.add_exception_handler(RequestValidationError, on_invalid)


def _is_anthropics(request: Request) -> bool:
    """Whether one of Anthropic's clients asks: all of them send this header."""
    return "anthropic-version" in request.headers


def _tenant(gateway: Gateway, request: Request) -> Tenant:
    headers = request.headers
    return gateway.keys.authenticate(headers.get("authorization"), headers.get("x-api-key"))


def _add_health(app: FastAPI, gateway: Gateway) -> None:
    @app.get("/health", tags=["platform"], summary="Is the gateway alive?")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get(
        "/ready",
        tags=["platform"],
        summary="Can every model take a request?",
        responses={503: {"description": "Not yet; the message names the models."}},
    )
    async def ready() -> dict[str, Any]:
        replicas = {name: len(m.router.members) for name, m in gateway.models.items()}
        missing = [
            name
            for name, count in replicas.items()
            if not count and gateway.models[name].settings.replicas and not gateway.covers(name)
        ]
        if missing:
            raise NoReplicaError(f"No replica is up yet for: {', '.join(sorted(missing))}.")
        return {"status": "ready", "replicas": replicas}


def _add_models(app: FastAPI, gateway: Gateway) -> None:
    started = int(time.time())

    def card(model: Model) -> dict[str, Any]:
        return {
            "id": model.name,
            "object": "model",
            "created": started,
            "owned_by": "weir",
            "max_model_len": model.max_model_len or None,
        }

    def message_card(model: Model) -> dict[str, Any]:
        return {
            "type": "model",
            "id": model.name,
            "display_name": model.name,
            "created_at": dt.datetime.fromtimestamp(started, dt.UTC).isoformat(),
            "lifecycle": "active",
            "max_input_tokens": model.max_model_len or None,
        }

    @app.get("/v1/models", tags=["openai"], summary="The models that the key may use")
    async def list_models(request: Request) -> dict[str, Any]:
        tenant = _tenant(gateway, request)
        visible = [
            m for m in gateway.models.values() if not tenant.models or m.name in tenant.models
        ]
        if not _is_anthropics(request):
            return {"object": "list", "data": [card(m) for m in visible]}
        ends = {"first_id": visible[0].name, "last_id": visible[-1].name} if visible else {}
        return {"data": [message_card(m) for m in visible], "has_more": False, **ends}

    @app.get("/v1/models/{model:path}", tags=["openai"], summary="One model")
    async def get_model(model: str, request: Request) -> dict[str, Any]:
        tenant = _tenant(gateway, request)
        served = gateway.models.get(model)
        if served is None:
            raise model_not_found(model)
        tenant.require_model(model)
        return message_card(served) if _is_anthropics(request) else card(served)


def _add_metrics(app: FastAPI, gateway: Gateway, session: aiohttp.ClientSession) -> None:
    @app.get(
        "/metrics",
        tags=["platform"],
        summary="Prometheus metrics: the gateway's own, and those of its engines by replica",
        response_class=PlainTextResponse,
    )
    async def metrics() -> Response:
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
        own = generate_latest(gateway.metrics.registry).decode()
        engines = await _scrape_engines(gateway, session)
        return Response(own + engines, media_type=CONTENT_TYPE_LATEST)


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


_SAMPLE = re.compile(r"^(vllm:[A-Za-z0-9_:]+)(?:\{(.*)\})? (.+)$")


def merge_metrics(by_replica: dict[str, str]) -> str:
    """vLLM's metrics of several replicas as one exposition, told apart by a ``replica`` label."""
    families: dict[str, list[str]] = {}
    family = ""
    for replica_id, text in by_replica.items():
        for line in text.splitlines():
            if line.startswith("#"):
                family = line.split(" ", 3)[2] if line.count(" ") >= 2 else ""
                if family.startswith("vllm:"):
                    lines = families.setdefault(family, [])
                    if line not in lines:
                        lines.append(line)
            elif (match := _SAMPLE.match(line)) and family in families:
                name, labels, value = match.groups()
                joined = f'replica="{replica_id}"' + (f",{labels}" if labels else "")
                families[family].append(f"{name}{{{joined}}} {value}")
    return "".join(line + "\n" for lines in families.values() for line in lines)


def _add_status(
    app: FastAPI, gateway: Gateway, internal_token: str, deployment_states: DeploymentStates
) -> None:
    started_s = time.monotonic()
    models = {model_deployment(name): model for name, model in gateway.models.items()}

    @app.get("/weir/status", include_in_schema=False)
    async def status(request: Request) -> dict[str, Any]:
        given = request.headers.get("authorization", "")
        if not internal_token or not hmac.compare_digest(
            given.encode(), f"Bearer {internal_token}".encode()
        ):
            raise AuthenticationError("The platform's own token is needed here.")
        deployments = await deployment_states()
        for deployment in deployments:
            model = models.get(deployment["name"])
            views = _replica_views(model) if model else []
            deployment["replicas"] = list_replicas(deployment.pop("replica_states"), views)
        return {"uptime_s": round(time.monotonic() - started_s, 1), "deployments": deployments}


def list_replicas(states: dict[str, int], views: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One entry per replica that Serve counts: in detail where this gateway knows it."""
    listed = []
    for state, count in states.items():
        known = views[:count] if state == "RUNNING" else []
        listed += [{"state": state, **view} for view in known]
        listed += [{"replica_id": "", "state": state}] * (count - len(known))
    return listed


def _replica_views(model: Model) -> list[dict[str, Any]]:
    snapshot = model.router.snapshot()
    views = []
    for view in snapshot.replicas:
        total = view.info.kv_blocks_total
        views.append(
            {
                "replica_id": view.replica_id,
                "address": view.info.address,
                "running": view.stats.running,
                "waiting": view.stats.waiting,
                "kv_use": round(view.stats.kv_blocks_used / total, 4) if total else 0.0,
                "outstanding_tokens": view.load.outstanding_tokens,
                "stats_age_s": round(snapshot.now_s - view.stats.at_s, 2),
            }
        )
    return views
