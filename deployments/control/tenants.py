"""Tenants: listed, made, read, changed, deleted."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request, Response
from sqlalchemy import Connection

from deployments.control.bodies import NewTenantBody, TenantBody, TenantChanges
from deployments.control.changes import Made
from deployments.control.paging import Page, Wanted, page, place_of, wanted
from deployments.control.parts import Parts
from deployments.control.routing import OPERATOR, TENANT, Face, Routes, principal_of
from deployments.control.versions import expected_version, tag_of, tagged
from weir.settings.tenants import TenantFields
from weir.tenancy import Role

_LIST = "/admin/v1/tenants"


def tenant_routes(parts: Parts) -> APIRouter:
    """``/admin/v1/tenants`` and below, and ``/v1/tenant`` itself."""
    routes = Routes("tenants")
    _add_listing(routes, parts)
    _add_making(routes, parts)
    for face in (OPERATOR, TENANT):
        _add_reading(routes, parts, face)
    _add_changing(routes, parts)
    return routes.router


async def find_tenant(parts: Parts, tenant_id: str) -> TenantBody:
    """A tenant, wherever it is defined.

    Raises:
        NotFoundError: there is none of that id.
    """
    settings = parts.of_settings.get(tenant_id)
    if settings is not None:
        return TenantBody.of_settings(tenant_id, settings)
    found = await parts.store.in_thread(lambda: parts.tenants.tenant(tenant_id))
    return TenantBody.of(found)


def _add_listing(routes: Routes, parts: Parts) -> None:
    @routes.get(
        _LIST, Role.ADMIN, response_model=Page[TenantBody], summary="All tenants, by their ids"
    )
    async def list_tenants(asked: Wanted = Depends(wanted)) -> Page[TenantBody]:
        place = place_of(asked, str)
        after = str(place[0]) if place else ""
        stored = await parts.store.in_thread(lambda: parts.tenants.tenants(after, asked.limit + 1))
        found = [TenantBody.of(each) for each in stored.items]
        found += [
            TenantBody.of_settings(each.id, each)
            for each in parts.of_settings.values()
            if each.id > after
        ]
        found.sort(key=lambda each: each.id)
        return page(found, asked, lambda each: (each.id,))


def _add_making(routes: Routes, parts: Parts) -> None:
    @routes.post(
        _LIST, Role.ADMIN, status_code=201, response_model=TenantBody, summary="Make a tenant"
    )
    async def create_tenant(body: NewTenantBody, request: Request) -> Response:
        fields = TenantFields.model_validate(body.model_dump(exclude={"id"}))
        actor = principal_of(request).actor

        def create(connection: Connection) -> Made:
            store = parts.tenants.within(connection)
            made = TenantBody.of(store.create_tenant(actor, body.id, fields))
            headers = {"etag": tag_of(made.version), "location": f"{_LIST}/{made.id}"}
            return Made(made, 201, headers)

        return await parts.changes.make(request, create)


def _add_reading(routes: Routes, parts: Parts, face: Face) -> None:
    @routes.get(
        face.prefix,
        face.reads,
        response_model=TenantBody,
        summary="A tenant",
        name=f"{face.name}_get_tenant",
    )
    async def get_tenant(request: Request, tenant: str = Depends(face.subject)) -> Response:
        found = await find_tenant(parts, tenant)
        return tagged(request, found, found.version)


def _add_changing(routes: Routes, parts: Parts) -> None:
    @routes.patch(
        OPERATOR.prefix,
        Role.ADMIN,
        response_model=TenantBody,
        summary="Change some fields of a tenant",
        versioned=True,
    )
    async def update_tenant(
        body: TenantChanges,  # type: ignore[valid-type]
        request: Request,
        tenant: str = Depends(OPERATOR.subject),
    ) -> Response:
        changes = body.model_dump(exclude_unset=True, mode="json")  # type: ignore[attr-defined]
        return await change_tenant(parts, request, tenant, changes)

    @routes.delete(
        OPERATOR.prefix,
        Role.ADMIN,
        status_code=204,
        response_class=Response,
        summary="Delete a tenant; its keys are revoked, its id stays taken",
        versioned=True,
    )
    async def delete_tenant(request: Request, tenant: str = Depends(OPERATOR.subject)) -> Response:
        actor, version = principal_of(request).actor, expected_version(request)

        def delete(connection: Connection) -> Made:
            parts.tenants.within(connection).delete_tenant(actor, tenant, version)
            return Made(None, 204)

        return await parts.changes.make(request, delete)


async def change_tenant(
    parts: Parts, request: Request, tenant: str, changes: dict[str, object]
) -> Response:
    """Merge ``changes`` into the version of the tenant that the request names; answer with all of
    it."""
    actor, version = principal_of(request).actor, expected_version(request)

    def change(connection: Connection) -> Made:
        store = parts.tenants.within(connection)
        made = TenantBody.of(store.update_tenant(actor, tenant, changes, version))
        return Made(made, headers={"etag": tag_of(made.version)})

    return await parts.changes.make(request, change)
