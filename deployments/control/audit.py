"""The audit log: read only, newest first."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Query

from deployments.control.bodies import AuditBody
from deployments.control.paging import Page, Wanted, page, place_of, wanted
from deployments.control.parts import Parts
from deployments.control.routing import OPERATOR, TENANT, Face, Routes
from weir.tenancy import Role
from weir.tenancy.audit import read_audit


def audit_routes(parts: Parts) -> APIRouter:
    """``/admin/v1/audit``, and a tenant's own part of it."""
    routes = Routes("audit")

    @routes.get(
        "/admin/v1/audit",
        Role.ADMIN,
        response_model=Page[AuditBody],
        summary="All changes, newest first",
    )
    async def list_audit(
        tenant: str | None = Query(
            None, pattern=r"^[a-z0-9][a-z0-9-]{0,62}$", description="Only what is about it."
        ),
        asked: Wanted = Depends(wanted),
    ) -> Page[AuditBody]:
        return await _entries(parts, tenant, asked)

    for face in (OPERATOR, TENANT):
        _add_own(routes, parts, face)
    return routes.router


def _add_own(routes: Routes, parts: Parts, face: Face) -> None:
    @routes.get(
        f"{face.prefix}/audit",
        face.manages,
        response_model=Page[AuditBody],
        summary="Changes of a tenant, its keys and its data, newest first",
        name=f"{face.name}_list_audit",
    )
    async def list_own(
        tenant: str = Depends(face.subject), asked: Wanted = Depends(wanted)
    ) -> Page[AuditBody]:
        return await _entries(parts, tenant, asked)


async def _entries(parts: Parts, tenant: str | None, asked: Wanted) -> Page[AuditBody]:
    place = place_of(asked, int)
    after = str(place[0]) if place else None
    engine = parts.tenants.engine
    found = await parts.store.in_thread(
        lambda: read_audit(engine, tenant_id=tenant, after=after, limit=asked.limit + 1)
    )
    return page([AuditBody.of(each) for each in found.items], asked, lambda each: (each.id,))
