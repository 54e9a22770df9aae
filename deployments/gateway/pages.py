"""Everything beside the request path: models, status, API docs, and the pages next to this file."""

from __future__ import annotations

import datetime as dt
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from fastapi import FastAPI, Request
from fastapi.exceptions import HTTPException, RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException as StarletteHTTPException

from deployments.batches.pages import add_batches
from deployments.batches.service import Batches
from deployments.gateway import http
from deployments.gateway.adapters import Adapter
from deployments.gateway.api_docs import describe_api
from deployments.gateway.callers import Callers, caller_of
from deployments.gateway.dialects.message_writer import error_body as message_error
from deployments.gateway.handle import Gateway
from deployments.gateway.metrics_page import Peers, add_metrics
from deployments.gateway.model import Model
from deployments.gateway.readiness import Answers, DeploymentStates, add_health
from deployments.gateway.response_pages import add_responses
from deployments.gateway.responses import Responses
from deployments.gateway.role_changes import Replicas
from deployments.gateway.role_pages import add_roles
from deployments.gateway.tracing.pages import add_traces
from deployments.pools import Pool, pools_of
from router.tiers import TierUse
from router.types import ReplicaView
from weir import __version__
from weir.errors import (
    BadRequestError,
    InternalError,
    MethodNotAllowedError,
    NotFoundError,
    WeirError,
    error_body,
    error_headers,
)
from weir.logs import stack_of
from weir.settings.server import MetricsSettings

_LOG = logging.getLogger("weir.gateway")
_MESSAGES = "/v1/messages"


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the pages need to know beside the gateway. ``services`` and ``directory``: see
    :func:`deployments.gateway.readiness.add_health`. ``batches``: None where there are no files
    and batches. ``peers``: see :class:`deployments.gateway.metrics_page.Peers`. ``gateways``: how
    many share the requests."""

    session: aiohttp.ClientSession
    internal_token: str
    metrics: MetricsSettings
    deployment_states: DeploymentStates
    services: Mapping[str, Answers] = field(default_factory=dict)
    directory: Callable[[], dict[str, Any]] = dict
    batches: Batches | None = None
    peers: Peers | None = None
    gateways: int = 1


def build_pages(gateway: Gateway, responses: Responses, around: Surroundings) -> FastAPI:
    """The FastAPI app behind every path but those of the request path."""
    app = FastAPI(title="weir", version=__version__, docs_url="/docs", redoc_url=None)
    watchers = frozenset(around.metrics.key_sha256)
    callers = Callers(gateway.directory, around.internal_token, watchers)
    _add_errors(app)
    add_health(app, gateway, callers, around.deployment_states, around.services, around.directory)
    _add_models(app, gateway)
    add_responses(app, responses)
    if around.batches is not None:
        add_batches(app, around.batches)
    add_metrics(app, gateway, callers, around.session, around.internal_token, around.peers)
    _add_status(app, gateway, callers, around.deployment_states)
    add_roles(app, gateway, callers, Replicas(around.session, around.internal_token))
    if gateway.parts.tracer is not None:
        add_traces(app, gateway.parts.tracer, callers, around.gateways)
    app.openapi = lambda: describe_api(app)  # type: ignore[method-assign]
    return app


def _add_errors(app: FastAPI) -> None:
    def render(request: Request, error: WeirError) -> JSONResponse:
        error.request_id = http.request_id(request.scope)
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

    async def on_failure(request: Request, error: Exception) -> JSONResponse:
        told = {"path": request.url.path, "request_id": http.request_id(request.scope)}
        _LOG.error("page failed: %s", stack_of(error), extra=told)
        return render(request, InternalError("An internal error occurred."))

    app.add_exception_handler(Exception, on_failure)
    app.add_exception_handler(WeirError, on_weir_error)
    app.add_exception_handler(StarletteHTTPException, on_http_error)
    app.add_exception_handler(RequestValidationError, on_invalid)


def _is_anthropics(request: Request) -> bool:
    """Whether one of Anthropic's clients asks: all of them send this header."""
    path = request.url.path
    return "anthropic-version" in request.headers or path.startswith(f"{_MESSAGES}/")


def _add_models(app: FastAPI, gateway: Gateway) -> None:
    started = int(time.time())

    def card(name: str, model: Model, adapter: Adapter | None) -> dict[str, Any]:
        made: dict[str, Any] = {
            "id": name,
            "object": "model",
            "created": started,
            "owned_by": "weir",
            "max_model_len": model.max_model_len or None,
        }
        return made if adapter is None else made | {"root": adapter.id, "parent": model.name}

    def message_card(name: str, model: Model) -> dict[str, Any]:
        return {
            "type": "model",
            "id": name,
            "display_name": name,
            "created_at": dt.datetime.fromtimestamp(started, dt.UTC).isoformat(),
            "lifecycle": "active",
            "max_input_tokens": model.max_model_len or None,
        }

    @app.get("/v1/models", tags=["openai"], summary="The models that the key may use")
    async def list_models(request: Request) -> dict[str, Any]:
        caller = caller_of(gateway.directory, request)
        visible: list[tuple[str, Model, Adapter | None]] = [
            (name, model, None) for name, model in gateway.models.items() if caller.sees_model(name)
        ]
        adapters = gateway.adapters.visible(caller)
        visible += [(name, gateway.models[found.model], found) for name, found in adapters]
        if not _is_anthropics(request):
            return {"object": "list", "data": [card(*each) for each in visible]}
        ends = {"first_id": visible[0][0], "last_id": visible[-1][0]} if visible else {}
        data = [message_card(name, model) for name, model, _ in visible]
        return {"data": data, "has_more": False, **ends}

    @app.get("/v1/models/{model:path}", tags=["openai"], summary="One model")
    async def get_model(model: str, request: Request) -> dict[str, Any]:
        caller = caller_of(gateway.directory, request)
        served, adapter = gateway.find_model(model, caller)
        if _is_anthropics(request):
            return message_card(model, served)
        return card(model, served, adapter)


def _add_status(
    app: FastAPI, gateway: Gateway, callers: Callers, deployment_states: DeploymentStates
) -> None:
    started_s = time.monotonic()
    known = {p.deployment: (m, p) for m in gateway.models.values() for p in pools_of(m.settings)}

    @app.get("/weir/status", include_in_schema=False)
    async def status(request: Request) -> dict[str, Any]:
        callers.require_platform(request)
        deployments = await deployment_states()
        for deployment in deployments:
            views = []
            if (name := deployment["name"]) in known:
                model, pool = known[name]
                deployment |= {"model": model.name, "pool": pool.name}
                views = _replica_views(model, pool)
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


def _tiers(use: TierUse | None) -> dict[str, Any]:
    """How much of memory and disk is in use for KV blocks; None where there is no disk."""
    if use is None or not use.memory_limit_bytes:
        return {}
    disk = use.disk_bytes / use.disk_limit_bytes if use.disk_limit_bytes else None
    return {
        "kv_memory_use": round(use.memory_bytes / use.memory_limit_bytes, 4),
        "kv_disk_use": None if disk is None else round(disk, 4),
    }


def _replica_views(model: Model, pool: Pool) -> list[dict[str, Any]]:
    snapshot = model.router.snapshot()
    views = []
    for view in snapshot.replicas:
        if view.info.pool != pool.name:
            continue
        total = view.info.kv_blocks_total
        views.append(
            {
                "replica_id": view.replica_id,
                "address": view.info.address,
                "running": view.stats.running,
                "waiting": view.stats.waiting,
                "kv_use": round(view.stats.kv_blocks_used / total, 4) if total else 0.0,
                "outstanding_tokens": view.load.outstanding_tokens,
                "mfu": view.stats.mfu,
                "mbu": view.stats.mbu,
                **_tiers(view.stats.tiers),
                "stats_age_s": round(snapshot.now_s - view.stats.at_s, 2),
                **(_role(view) if pool.name else {}),
            }
        )
    return views


def _role(view: ReplicaView) -> dict[str, Any]:
    info = view.info
    told = {"role": info.role, "pool_role": info.pool_role, "changes_role": info.changes_role}
    return {**told, "role_until": view.stats.role_until}
