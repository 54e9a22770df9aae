"""The control process' application."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute

from deployments.control.audit import audit_routes
from deployments.control.autoscaling import autoscaling_routes
from deployments.control.background import Background
from deployments.control.balances import Balances
from deployments.control.batches import batch_routes
from deployments.control.boards import Boards
from deployments.control.describing import describe
from deployments.control.edge import Edge, add_errors
from deployments.control.entity_features import EntityFeatures
from deployments.control.feature_pages import feature_routes
from deployments.control.keys import key_routes
from deployments.control.limits import limit_routes
from deployments.control.live_pages import live_routes
from deployments.control.metrics import add_metrics
from deployments.control.models import model_routes
from deployments.control.oidc import OidcProviders
from deployments.control.page_files import add_page
from deployments.control.parts import Parts
from deployments.control.principals import Doorkeeper
from deployments.control.reports import report_routes
from deployments.control.rollouts import rollout_routes
from deployments.control.tenants import tenant_routes
from weir import __version__
from weir.metrics import ControlMetrics

OPENAPI_PATH = "/admin/v1/openapi.json"
DOCS_PATH = "/admin/v1/docs"
HEALTH_PATH = "/health"


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the application holds open beside its parts."""

    doorkeeper: Doorkeeper
    providers: OidcProviders
    features: EntityFeatures
    balances: Balances
    boards: Boards
    background: Sequence[Background] = ()
    metrics: ControlMetrics = field(default_factory=ControlMetrics)


def build_app(parts: Parts, around: Surroundings) -> FastAPI:
    """The application, not started."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        around.providers.start()
        for each in around.background:
            each.start()
        try:
            yield
        finally:
            for each in around.background:
                await each.close()
            await around.providers.close()
            await around.features.close()
            await around.balances.close()
            await around.boards.close()
            parts.store.close()

    app = FastAPI(
        title="weir control",
        version=__version__,
        lifespan=lifespan,
        openapi_url=OPENAPI_PATH,
        docs_url=DOCS_PATH,
        redoc_url=None,
        swagger_ui_oauth2_redirect_url=None,
        generate_unique_id_function=_operation_id,
    )
    app.state.doorkeeper = around.doorkeeper
    app.openapi = lambda: describe(app)  # type: ignore[method-assign]
    app.add_middleware(Edge)
    add_errors(app)
    app.add_route(HEALTH_PATH, _health, include_in_schema=False)
    add_page(app)
    add_metrics(app, parts, around.metrics)
    for router in (
        tenant_routes(parts),
        key_routes(parts),
        limit_routes(parts, around.balances),
        model_routes(parts),
        report_routes(parts),
        autoscaling_routes(parts),
        feature_routes(parts, around.features),
        batch_routes(parts),
        live_routes(parts, around.boards, around.balances),
        audit_routes(parts),
        rollout_routes(parts),
    ):
        app.include_router(router)
    return app


def _operation_id(route: APIRoute) -> str:
    return route.name


async def _health(request: Request) -> JSONResponse:
    return JSONResponse({"status": "ok"})
