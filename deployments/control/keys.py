"""A tenant's API keys: listed, made, read, changed, rotated, revoked."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Path, Request, Response
from sqlalchemy import Connection

from deployments.control.bodies import (
    KeyBody,
    KeyChanges,
    NewKeyBody,
    NewKeyMadeBody,
    RotationBody,
)
from deployments.control.changes import Made
from deployments.control.paging import Page, Wanted, page, place_of, wanted
from deployments.control.parts import Parts
from deployments.control.principals import Principal
from deployments.control.routing import OPERATOR, TENANT, Face, Routes, principal_of
from deployments.control.tenants import find_tenant
from deployments.control.versions import expected_version, tag_of, tagged
from weir.errors import PermissionDeniedError
from weir.tenancy import Role
from weir.tenancy.fields import KeyFields

_KEY = Path(
    description="The key's id.", examples=["k3v9x2m8q1zt"], pattern=r"^[A-Za-z0-9_-]{1,63}$"
)


def key_routes(parts: Parts) -> APIRouter:
    """``…/keys`` and below, for the operator and for tenants."""
    routes = Routes("keys")
    for face in (OPERATOR, TENANT):
        _add_listing(routes, parts, face)
        _add_making(routes, parts, face)
        _add_changing(routes, parts, face)
        _add_ending(routes, parts, face)
    return routes.router


def _add_listing(routes: Routes, parts: Parts, face: Face) -> None:
    @routes.get(
        f"{face.prefix}/keys",
        face.reads,
        response_model=Page[KeyBody],
        summary="A tenant's keys, by their ids; revoked and expired ones too",
        name=f"{face.name}_list_keys",
    )
    async def list_keys(
        tenant: str = Depends(face.subject), asked: Wanted = Depends(wanted)
    ) -> Page[KeyBody]:
        await find_tenant(parts, tenant)
        place = place_of(asked, str)
        after = str(place[0]) if place else None
        stored = await parts.store.in_thread(
            lambda: parts.tenants.keys(tenant, after, asked.limit + 1)
        )
        return page([KeyBody.of(each) for each in stored.items], asked, lambda each: (each.id,))

    @routes.get(
        f"{face.prefix}/keys/{{key}}",
        face.reads,
        response_model=KeyBody,
        summary="A key, without its secret",
        name=f"{face.name}_get_key",
    )
    async def get_key(
        request: Request, key: str = _KEY, tenant: str = Depends(face.subject)
    ) -> Response:
        found = await parts.store.in_thread(lambda: parts.tenants.key(key, tenant_id=tenant))
        return tagged(request, KeyBody.of(found), found.version)


def _add_making(routes: Routes, parts: Parts, face: Face) -> None:
    @routes.post(
        f"{face.prefix}/keys",
        face.manages,
        status_code=201,
        response_model=NewKeyMadeBody,
        summary="Make a key; its secret is in this answer and nowhere else",
        name=f"{face.name}_create_key",
    )
    async def create_key(
        body: NewKeyBody, request: Request, tenant: str = Depends(face.subject)
    ) -> Response:
        principal = principal_of(request)
        _require_no_stronger(principal, body.role)
        fields = KeyFields.model_validate(body.model_dump())

        def create(connection: Connection) -> Made:
            store = parts.tenants.within(connection)
            made = NewKeyMadeBody.of_new(store.create_key(principal.actor, tenant, fields))
            return Made(made, 201, {"etag": tag_of(made.version), "cache-control": "no-store"})

        return await parts.changes.make(request, create)

    @routes.post(
        f"{face.prefix}/keys/{{key}}/rotate",
        face.manages,
        status_code=201,
        response_model=NewKeyMadeBody,
        summary="Make another key that may do the same; the old one goes on for a while",
        name=f"{face.name}_rotate_key",
    )
    async def rotate_key(
        body: RotationBody, request: Request, key: str = _KEY, tenant: str = Depends(face.subject)
    ) -> Response:
        principal = principal_of(request)

        def rotate(connection: Connection) -> Made:
            store = parts.tenants.within(connection)
            made = NewKeyMadeBody.of_new(
                store.rotate_key(principal.actor, key, body.overlap_s, tenant_id=tenant)
            )
            _require_no_stronger(principal, made.role)
            return Made(made, 201, {"etag": tag_of(made.version), "cache-control": "no-store"})

        return await parts.changes.make(request, rotate)


def _add_changing(routes: Routes, parts: Parts, face: Face) -> None:
    @routes.patch(
        f"{face.prefix}/keys/{{key}}",
        face.manages,
        response_model=KeyBody,
        summary="Change some fields of a key",
        name=f"{face.name}_update_key",
        versioned=True,
    )
    async def update_key(
        body: KeyChanges,  # type: ignore[valid-type]
        request: Request,
        key: str = _KEY,
        tenant: str = Depends(face.subject),
    ) -> Response:
        principal, version = principal_of(request), expected_version(request)
        changes = body.model_dump(exclude_unset=True, mode="json")  # type: ignore[attr-defined]

        def change(connection: Connection) -> Made:
            store = parts.tenants.within(connection)
            before = store.key(key, tenant_id=tenant)
            made = KeyBody.of(
                store.update_key(principal.actor, key, changes, version, tenant_id=tenant)
            )
            for role in (before.key.role, made.role):
                _require_no_stronger(principal, role)
            return Made(made, headers={"etag": tag_of(made.version)})

        return await parts.changes.make(request, change)


def _add_ending(routes: Routes, parts: Parts, face: Face) -> None:
    @routes.delete(
        f"{face.prefix}/keys/{{key}}",
        face.manages,
        response_model=KeyBody,
        summary="Revoke a key: it is refused from now on, for good",
        name=f"{face.name}_revoke_key",
    )
    async def revoke_key(
        request: Request, key: str = _KEY, tenant: str = Depends(face.subject)
    ) -> Response:
        principal = principal_of(request)

        def revoke(connection: Connection) -> Made:
            store = parts.tenants.within(connection)
            made = KeyBody.of(store.revoke_key(principal.actor, key, tenant_id=tenant))
            _require_no_stronger(principal, made.role)
            return Made(made, headers={"etag": tag_of(made.version)})

        return await parts.changes.make(request, revoke)


def _require_no_stronger(principal: Principal, role: Role) -> None:
    """Nobody makes, or has a hand in, a key that may do more than whoever asks.

    Raises:
        PermissionDeniedError: this one may.
    """
    if not principal.at_least(role):
        raise PermissionDeniedError(
            f"A key with the role {role} is beyond yours, {principal.role}.", param="role"
        )
