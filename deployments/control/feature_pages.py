"""What is kept about an entity: shown to its tenant, and deleted when the tenant asks."""

from __future__ import annotations

import math
from typing import Any, Literal
from unicodedata import normalize

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict
from sqlalchemy import Connection

from deployments.control.changes import Made
from deployments.control.entity_features import EntityFeatures, Service
from deployments.control.parts import Parts
from deployments.control.routing import OPERATOR, TENANT, Face, Routes, principal_of
from deployments.control.tenants import find_tenant
from features.online import FeatureRow
from weir.tenancy.audit import append_audit

_SERVICE = Path(
    description="The feature service.",
    examples=["support_desk"],
    pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$",
)
_ENTITY = Query(
    min_length=1,
    max_length=1024,
    pattern=r"^[^\x00-\x1f\x7f]+$",
    description="The entity, as requests name it: an id, or `customer=42;region=eu`.",
    examples=["10023"],
)


class ServiceBody(BaseModel):
    """A feature service that the tenant's requests may name entities of."""

    object: Literal["feature_service"] = "feature_service"
    name: str
    features: dict[str, str]
    entity: str
    deletable: bool


class ServicesBody(BaseModel):
    """All of them."""

    object: Literal["list"] = "list"
    data: list[ServiceBody]


class EntityBody(BaseModel):
    """What is known of an entity. A feature whose ``reasons`` has an entry has its default.
    ``outcome``: ``hit``, ``partial``, ``missing`` or ``stale``. ``written_s``: when the oldest
    part was written."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "object": "entity_features",
                    "service": "support_desk",
                    "entity": "10023",
                    "outcome": "hit",
                    "long_tail": False,
                    "values": {"plan": "premium", "orders": 12},
                    "reasons": {},
                    "views": {"customer_profile": "fresh"},
                    "written_s": 1796083200.0,
                }
            ]
        }
    )
    object: Literal["entity_features"] = "entity_features"
    service: str
    entity: str
    outcome: str
    long_tail: bool
    values: dict[str, Any]
    reasons: dict[str, str]
    views: dict[str, str]
    written_s: float | None

    @classmethod
    def of(cls, service: str, entity: str, row: FeatureRow) -> EntityBody:
        """A row of the store."""
        return cls(
            service=service,
            entity=entity,
            outcome=row.outcome,
            long_tail=row.long_tail,
            values={name: _shown(value) for name, value in row.values.items()},
            reasons=dict(row.reasons),
            views=dict(row.views),
            written_s=row.written_s,
        )


class EntityDeletedBody(BaseModel):
    """``deleted``: whether there was anything."""

    object: Literal["entity_features.deleted"] = "entity_features.deleted"
    service: str
    entity: str
    deleted: bool


def feature_routes(parts: Parts, features: EntityFeatures) -> APIRouter:
    """``…/features`` and below."""
    routes = Routes("features")
    for face in (OPERATOR, TENANT):
        _add_services(routes, parts, features, face)
        _add_reading(routes, parts, features, face)
        _add_deleting(routes, parts, features, face)
    return routes.router


def _add_services(routes: Routes, parts: Parts, features: EntityFeatures, face: Face) -> None:
    @routes.get(
        f"{face.prefix}/features",
        face.reads,
        response_model=ServicesBody,
        summary="The feature services of a tenant",
        name=f"{face.name}_list_feature_services",
    )
    async def list_services(tenant: str = Depends(face.subject)) -> ServicesBody:
        await find_tenant(parts, tenant)
        return ServicesBody(data=[_service(each) for each in features.services(tenant)])


def _add_reading(routes: Routes, parts: Parts, features: EntityFeatures, face: Face) -> None:
    @routes.get(
        f"{face.prefix}/features/{{service}}",
        face.manages,
        response_model=EntityBody,
        summary="What is kept about an entity",
        name=f"{face.name}_get_entity_features",
    )
    async def get_entity(
        service: str = _SERVICE, entity: str = _ENTITY, tenant: str = Depends(face.subject)
    ) -> EntityBody:
        await find_tenant(parts, tenant)
        named = normalize("NFC", entity)
        return EntityBody.of(service, named, await features.read(tenant, service, named))


def _add_deleting(routes: Routes, parts: Parts, features: EntityFeatures, face: Face) -> None:
    @routes.delete(
        f"{face.prefix}/features/{{service}}",
        face.manages,
        response_model=EntityDeletedBody,
        summary="Delete what is kept about an entity in the online store",
        name=f"{face.name}_delete_entity_features",
    )
    async def delete_entity(
        request: Request,
        service: str = _SERVICE,
        entity: str = _ENTITY,
        tenant: str = Depends(face.subject),
    ) -> Response:
        await find_tenant(parts, tenant)
        named = normalize("NFC", entity)
        deleted = await features.delete(tenant, service, named)
        actor = principal_of(request).actor

        def note(connection: Connection) -> Made:
            # The entity's id may be a person's: the log has whose it was and of which service.
            append_audit(
                connection,
                parts.now_s(),
                actor,
                "features.delete",
                f"features:{service}",
                tenant_id=tenant,
                after={"deleted": deleted},
            )
            return Made(EntityDeletedBody(service=service, entity=named, deleted=deleted))

        return await parts.changes.make(request, note)


def _service(service: Service) -> ServiceBody:
    return ServiceBody(
        name=service.name,
        features={name: kind for name, kind, _ in service.plan.spec.columns()},
        entity=service.keys.example,
        deletable=service.holds_tenant,
    )


def _shown(value: Any) -> Any:
    if isinstance(value, list):
        return [_shown(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
