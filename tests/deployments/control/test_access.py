"""Nobody passes without a key that is valid now, is strong enough, and is of the right tenant:
every route of the application, by walking over them."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.routing import APIRoute

from deployments.control.app import DOCS_PATH, HEALTH_PATH, OPENAPI_PATH
from deployments.control.metrics import PATH as METRICS_PATH
from deployments.control.page_files import FILES, PAGE_PATH
from deployments.control.routing import Routes
from tests.deployments.control.routes import Operation, example_body, operations
from tests.deployments.control.world import IN_SETTINGS, OPERATOR, START_S, World
from weir.tenancy import Role
from weir.tenancy.fields import KeyFields

_WEAKER = {
    Role.ADMIN: Role.TENANT_ADMIN,
    Role.TENANT_ADMIN: Role.TENANT_USER,
    Role.TENANT_USER: Role.READ_ONLY,
}
#: What strangers may read: nothing of anybody's. (Metrics ask for a key of their own where they can
#: be reached: test_metrics.)
_PUBLIC = {OPENAPI_PATH, DOCS_PATH, HEALTH_PATH, METRICS_PATH} | {
    f"{PAGE_PATH}/{name}".rstrip("/") for name in FILES
}


async def _ask(
    world: World,
    operation: Operation,
    key: str | None,
    tenant: str = "acme",
    key_id: str | None = None,
) -> Any:
    path = operation.filled(
        tenant=tenant,
        key=key_id or world.ids["acme", Role.READ_ONLY],
        model="big",
        service="support_desk",
        batch="batch_1",
        request="r1",
    )
    query = {"entity": "10023"} if "{service}" in operation.path else {}
    body = example_body(world.app, operation)
    more = {} if body is None else {"json": body}
    headers = {"if-match": "*"}
    return await world.ask(operation.method, path, key, params=query, headers=headers, **more)


async def test_only_these_pages_are_for_strangers(world: World) -> None:
    others = [each for each in world.app.routes if not isinstance(each, APIRoute)]
    # Metrics have a guard of their own (test_metrics.py).
    assert {each.path for each in others} == _PUBLIC | {"/metrics"}
    assert len(list(operations(world.app))) > 30


async def test_without_a_valid_key_there_is_a_401_everywhere(world: World) -> None:
    acme = world.store.create_key("test", "acme", KeyFields(role=Role.ADMIN))
    world.store.revoke_key("test", acme.stored.key.id)
    fleeting = KeyFields(role=Role.ADMIN, expires_s=START_S + 10)
    expired = world.store.create_key("test", "acme", fleeting).secret
    assert (await world.ask("GET", "/admin/v1/tenants", expired)).status_code == 200
    world.clock.now_s = START_S + 10
    good = world.keys["acme", Role.ADMIN]
    bad = {
        "none": None,
        "empty": "",
        "wrong": "weir_nobody_has-this-one",
        "another secret": good[:-4] + ("aaaa" if not good.endswith("aaaa") else "bbbb"),
        "no key at all": "x" * 5000,
        "a token of nobody": "eyJhbGciOiJub25lIn0.eyJpc3MiOiJ4In0.",
        "revoked": acme.secret,
        "expired": expired,
    }
    for operation in operations(world.app):
        for name, key in bad.items():
            answer = await _ask(world, operation, key)
            assert answer.status_code == 401, (operation.name, name, answer.text)
            assert answer.json()["error"]["type"] == "authentication_error"
            assert answer.headers["www-authenticate"]


async def test_too_weak_a_role_is_a_403_everywhere(world: World) -> None:
    for operation in operations(world.app):
        weaker = operation.needs
        while (weaker := _WEAKER.get(weaker, weaker)) in _WEAKER or weaker is Role.READ_ONLY:
            if weaker is operation.needs:
                break
            answer = await _ask(world, operation, world.keys["acme", weaker])
            assert answer.status_code == 403, (operation.name, weaker, answer.text)
            if weaker is Role.READ_ONLY:
                break


async def test_another_tenants_key_finds_nothing(world: World) -> None:
    for operation in operations(world.app):
        if operation.operators:
            key = world.keys["other", Role.TENANT_ADMIN]
            answer = await _ask(world, operation, key)
            assert answer.status_code == 403, (operation.name, answer.text)
            continue
        answer = await _ask(world, operation, world.keys["other", Role.TENANT_ADMIN])
        if operation.names_something:
            assert answer.status_code == 404, (operation.name, answer.text)
        for role in Role:
            assert world.ids["acme", role] not in answer.text or answer.status_code == 404
        assert '"acme"' not in answer.text, (operation.name, answer.text)


async def test_a_key_that_is_strong_enough_passes_everywhere(world: World) -> None:
    """So that the tests above say something."""
    for operation in operations(world.app):
        key = world.keys["acme", operation.needs]
        spare = world.store.create_key("test", "acme", KeyFields(role=Role.READ_ONLY))
        tenant = "other" if operation.operators else "acme"
        answer = await _ask(world, operation, key, tenant, spare.stored.key.id)
        assert answer.status_code not in (401, 403), (operation.name, answer.text)
        assert answer.status_code < 500 or answer.json()["error"]["code"] == "redis_away"
        if operation.operators:
            answer = await _ask(world, operation, OPERATOR, tenant="nobody-there")
            if "{tenant}" in operation.path:
                # The log of a tenant is read when the tenant is gone, too.
                found = [] if operation.path.endswith("/audit") else None
                assert answer.status_code == 404 or answer.json()["data"] == found, operation.name


async def test_the_operators_key_is_of_no_tenant(world: World) -> None:
    for operation in operations(world.app):
        if not operation.operators:
            answer = await _ask(world, operation, OPERATOR)
            assert answer.status_code == 403, (operation.name, answer.text)


async def test_who_asks_is_known_before_anything_else_is_looked_at(world: World) -> None:
    for operation in operations(world.app):
        path = operation.filled(
            tenant="%20", key="%20", model="%20", service="%20", batch="%20", request="%20"
        )
        for key, status in ((None, 401), (world.keys["acme", Role.READ_ONLY], 403)):
            if status == 403 and operation.needs is Role.READ_ONLY:
                continue
            answer = await world.ask(operation.method, path, key, content=b"{no json")
            assert answer.status_code == status, (operation.name, answer.text)


async def test_a_tenant_that_is_switched_off_or_deleted_is_refused(world: World) -> None:
    key = world.keys["acme", Role.TENANT_ADMIN]
    assert (await world.ask("GET", "/v1/tenant", key)).status_code == 200
    world.store.update_tenant("test", "acme", {"enabled": False})
    assert (await world.ask("GET", "/v1/tenant", key)).status_code == 403
    world.store.update_tenant("test", "acme", {"enabled": True})
    assert (await world.ask("GET", "/v1/tenant", key)).status_code == 200
    world.store.delete_tenant("test", "acme")
    assert (await world.ask("GET", "/v1/tenant", key)).status_code == 401


async def test_a_key_of_the_settings_reads_its_own_tenant(world: World) -> None:
    answer = await world.ask("GET", "/v1/tenant", IN_SETTINGS)
    assert (answer.status_code, answer.json()["id"]) == (200, "listed")
    assert answer.json()["source"] == "settings"
    assert (await world.ask("GET", "/admin/v1/tenants", IN_SETTINGS)).status_code == 403


async def test_a_key_in_x_api_key_is_as_good(world: World) -> None:
    headers = {"x-api-key": world.keys["acme", Role.READ_ONLY]}
    assert (await world.ask("GET", "/v1/tenant", None, headers=headers)).status_code == 200


def test_a_route_cannot_be_declared_without_a_role() -> None:
    routes = Routes("x")
    with pytest.raises(ValueError, match="which role"):
        routes.router.add_api_route("/open", lambda: None)
