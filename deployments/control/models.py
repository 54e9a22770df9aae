"""Models with their prices, and adapters: all of them for the operator, a tenant's own for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict

from deployments.control.parts import Parts
from deployments.control.routing import OPERATOR, TENANT, Face, Routes
from deployments.control.tenants import find_tenant
from deployments.gateway.adapters import Adapter, AdapterNames
from weir.settings import ModelSettings, PriceSettings
from weir.tenancy import Caller, Key, Role
from weir.tenancy.fields import tenant_of_fields

#: What the operator pays, which tenants are not told.
_OPERATORS = {"replica_usd_per_hour"}
Price = dict[str, Any]


class PoolBody(BaseModel):
    """Replicas of a model that have a role. ``name`` is empty for a model without pools."""

    name: str
    role: str
    replicas: int
    price: Price


class ModelBody(BaseModel):
    """A model. Amounts are decimal text; ``student``: which model may answer for it."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "object": "model",
                    "name": "weir-teacher",
                    "price": {
                        "input_usd_per_million_tokens": "0.5",
                        "cached_input_usd_per_million_tokens": None,
                        "output_usd_per_million_tokens": "1.5",
                    },
                    "student": "weir-student",
                    "adapters": ["weir-teacher:returns"],
                }
            ]
        }
    )
    object: Literal["model"] = "model"
    name: str
    price: Price
    student: str | None
    adapters: list[str]


class OperatorModelBody(ModelBody):
    """A model, and what it is made of."""

    source: str
    accelerator: str | None
    pools: list[PoolBody]


class AdapterBody(BaseModel):
    """A LoRA adapter, as requests name it. ``price`` null: the model's."""

    object: Literal["adapter"] = "adapter"
    name: str
    model: str
    aliases: list[str]
    price: Price | None


class OperatorAdapterBody(AdapterBody):
    """An adapter, and who may use it (empty: all who may use the model)."""

    source: str
    tenants: list[str]


class ModelsBody(BaseModel):
    """Models that a tenant may use."""

    object: Literal["list"] = "list"
    data: list[ModelBody]


class AdaptersBody(BaseModel):
    """Adapters that a tenant may use."""

    object: Literal["list"] = "list"
    data: list[AdapterBody]


class OperatorModelsBody(BaseModel):
    """All models."""

    object: Literal["list"] = "list"
    data: list[OperatorModelBody]


class OperatorAdaptersBody(BaseModel):
    """All adapters."""

    object: Literal["list"] = "list"
    data: list[OperatorAdapterBody]


def model_routes(parts: Parts) -> APIRouter:
    """``…/models`` and ``…/adapters``. They are as the settings say: whoever changes them there
    applies them with ``weir apply``."""
    routes = Routes("models")
    _add_all(routes, parts)
    for face in (OPERATOR, TENANT):
        _add_own(routes, parts, face)
    return routes.router


def _add_all(routes: Routes, parts: Parts) -> None:
    models = parts.settings.models

    @routes.get(
        "/admin/v1/models",
        Role.ADMIN,
        response_model=OperatorModelsBody,
        summary="All models, with prices and pools",
    )
    async def list_all_models() -> OperatorModelsBody:
        return OperatorModelsBody(data=[_operators_model(each) for each in models])

    @routes.get(
        "/admin/v1/adapters",
        Role.ADMIN,
        response_model=OperatorAdaptersBody,
        summary="All adapters",
    )
    async def list_all_adapters() -> OperatorAdaptersBody:
        found = [
            OperatorAdapterBody(
                name=f"{model.name}:{adapter.name}",
                model=model.name,
                aliases=list(adapter.aliases),
                price=None if adapter.price is None else _price(adapter.price),
                source=adapter.source,
                tenants=list(adapter.tenants),
            )
            for model in models
            for adapter in model.adapters
        ]
        return OperatorAdaptersBody(data=found)


def _add_own(routes: Routes, parts: Parts, face: Face) -> None:
    models = parts.settings.models
    names = AdapterNames(models)

    @routes.get(
        f"{face.prefix}/models",
        face.reads,
        response_model=ModelsBody,
        summary="The models that a tenant may use, with its prices",
        name=f"{face.name}_list_models",
    )
    async def list_models(tenant: str = Depends(face.subject)) -> ModelsBody:
        whose = await _caller(parts, tenant)
        visible = [each for each in models if whose.sees_model(each.name)]
        usable = {adapter.id for _, adapter in names.visible(whose)}
        return ModelsBody(data=[_model(each, usable) for each in visible])

    @routes.get(
        f"{face.prefix}/adapters",
        face.reads,
        response_model=AdaptersBody,
        summary="The adapters that a tenant may use",
        name=f"{face.name}_list_adapters",
    )
    async def list_adapters(tenant: str = Depends(face.subject)) -> AdaptersBody:
        whose = await _caller(parts, tenant)
        found = {adapter.id: adapter for _, adapter in names.visible(whose)}
        return AdaptersBody(data=[_adapter(each) for each in found.values()])


async def _caller(parts: Parts, tenant_id: str) -> Caller:
    """The tenant, with a key that narrows nothing."""
    found = await find_tenant(parts, tenant_id)
    return Caller(tenant_of_fields(tenant_id, found), Key("", tenant_id, ""))


def _model(model: ModelSettings, usable: set[str]) -> ModelBody:
    adapters = [f"{model.name}:{adapter.name}" for adapter in model.adapters]
    return ModelBody(
        name=model.name,
        price=_price(model.price, _OPERATORS),
        student=model.fallback.student if model.fallback else None,
        adapters=[name for name in adapters if name in usable],
    )


def _operators_model(model: ModelSettings) -> OperatorModelBody:
    return OperatorModelBody(
        name=model.name,
        price=_price(model.price),
        student=model.fallback.student if model.fallback else None,
        adapters=[f"{model.name}:{adapter.name}" for adapter in model.adapters],
        source=model.source,
        accelerator=model.accelerator,
        pools=[
            PoolBody(
                name=pool.name,
                role=pool.role,
                replicas=pool.replicas,
                price=_price(model.of_pool(pool).price),
            )
            for pool in model.pools
        ]
        or [PoolBody(name="", role="mixed", replicas=model.replicas, price=_price(model.price))],
    )


def _adapter(adapter: Adapter) -> AdapterBody:
    return AdapterBody(
        name=adapter.id,
        model=adapter.model,
        aliases=list(adapter.aliases),
        price=None if adapter.price is None else _price(adapter.price, _OPERATORS),
    )


def _price(settings: PriceSettings, without: set[str] | None = None) -> Price:
    """Each part as decimal text, as it was written in the settings."""
    parts = settings.model_dump(exclude=without or set())
    return {name: _text(value) for name, value in parts.items()}


def _text(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _text(each) for name, each in value.items()}
    return None if value is None else str(value)
