"""Quotas and budgets of a tenant: read by the tenant too, changed by the operator."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Path, Request, Response

from deployments.control.balances import Balances
from deployments.control.bodies import (
    BudgetBody,
    NewBudgetBody,
    NewQuotasBody,
    QuotasBody,
    SpendingBody,
    TenantBody,
)
from deployments.control.parts import Parts
from deployments.control.routing import OPERATOR, TENANT, Face, Routes
from deployments.control.tenants import change_tenant, find_tenant
from deployments.control.versions import tagged
from weir.tenancy import Role

_MODEL = Path(
    description="The model's name.",
    examples=["weir-teacher"],
    pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,127}$",
)
_QUOTAS = f"{OPERATOR.prefix}/quotas"
_OF_MODEL = f"{_QUOTAS}/models/{{model:path}}"
_BUDGET = f"{OPERATOR.prefix}/budget"


def limit_routes(parts: Parts, balances: Balances) -> APIRouter:
    """``…/quotas`` and ``…/budget``."""
    routes = Routes("limits")
    for face in (OPERATOR, TENANT):
        _add_reading(routes, parts, face)
        _add_spending(routes, parts, balances, face)
    _add_quotas(routes, parts)
    _add_budget(routes, parts)
    return routes.router


def _add_reading(routes: Routes, parts: Parts, face: Face) -> None:
    @routes.get(
        f"{face.prefix}/quotas",
        face.reads,
        response_model=QuotasBody,
        summary="How much a tenant may use",
        name=f"{face.name}_get_quotas",
    )
    async def get_quotas(request: Request, tenant: str = Depends(face.subject)) -> Response:
        found = await find_tenant(parts, tenant)
        body = QuotasBody(tenant=found.quotas, models=found.model_quotas)
        return tagged(request, body, found.version)

    @routes.get(
        f"{face.prefix}/budget",
        face.reads,
        response_model=BudgetBody,
        summary="How much a tenant may spend in a month",
        name=f"{face.name}_get_budget",
    )
    async def get_budget(request: Request, tenant: str = Depends(face.subject)) -> Response:
        found = await find_tenant(parts, tenant)
        return tagged(request, BudgetBody(budget=found.budget), found.version)


def _add_spending(routes: Routes, parts: Parts, balances: Balances, face: Face) -> None:
    @routes.get(
        f"{face.prefix}/budget/spending",
        face.reads,
        response_model=SpendingBody,
        summary="What a tenant has spent of its budget this month",
        name=f"{face.name}_get_spending",
    )
    async def get_spending(tenant: str = Depends(face.subject)) -> SpendingBody:
        found = await find_tenant(parts, tenant)
        month, spent = await balances.spent(tenant)
        return SpendingBody.of(month, spent, found.budget)


def _add_quotas(routes: Routes, parts: Parts) -> None:
    @routes.put(
        _QUOTAS,
        Role.ADMIN,
        response_model=TenantBody,
        summary="Replace a tenant's own quotas; those by model stay",
        versioned=True,
    )
    async def put_quotas(
        body: NewQuotasBody, request: Request, tenant: str = Depends(OPERATOR.subject)
    ) -> Response:
        return await change_tenant(parts, request, tenant, {"quotas": body.model_dump()})

    @routes.put(
        _OF_MODEL,
        Role.ADMIN,
        response_model=TenantBody,
        summary="Replace a tenant's quotas of one model",
        versioned=True,
    )
    async def put_model_quotas(
        body: NewQuotasBody,
        request: Request,
        model: str = _MODEL,
        tenant: str = Depends(OPERATOR.subject),
    ) -> Response:
        changes: dict[str, object] = {"model_quotas": {model: body.model_dump()}}
        return await change_tenant(parts, request, tenant, changes)

    @routes.delete(
        _OF_MODEL,
        Role.ADMIN,
        response_model=TenantBody,
        summary="Take a tenant's quotas of one model away",
        versioned=True,
    )
    async def delete_model_quotas(
        request: Request, model: str = _MODEL, tenant: str = Depends(OPERATOR.subject)
    ) -> Response:
        return await change_tenant(parts, request, tenant, {"model_quotas": {model: None}})


def _add_budget(routes: Routes, parts: Parts) -> None:
    @routes.put(
        _BUDGET,
        Role.ADMIN,
        response_model=TenantBody,
        summary="Replace a tenant's budget",
        versioned=True,
    )
    async def put_budget(
        body: NewBudgetBody, request: Request, tenant: str = Depends(OPERATOR.subject)
    ) -> Response:
        changes: dict[str, object] = {"budget": body.model_dump(mode="json")}
        return await change_tenant(parts, request, tenant, changes)

    @routes.delete(
        _BUDGET,
        Role.ADMIN,
        response_model=TenantBody,
        summary="Take a tenant's budget away",
        versioned=True,
    )
    async def delete_budget(request: Request, tenant: str = Depends(OPERATOR.subject)) -> Response:
        return await change_tenant(parts, request, tenant, {"budget": None})
