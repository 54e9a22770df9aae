"""What is kept about an entity: its own tenant sees it and deletes it, nobody else does."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from deployments.redis_server import RedisServer
from features.join_keys import OWN_KEYS
from features.online.format import timestamp_field, value_field
from features.tail import TAKEN, TENANTS
from tests.deployments.control.world import START_S, World, free_port, running, settings_of
from weir.settings import parse_settings
from weir.tenancy import Role
from weir.tenancy.audit import read_audit

pytestmark = pytest.mark.filterwarnings("ignore:pkg_resources is deprecated")


@pytest.fixture(scope="module")
def redis_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    folder, port = tmp_path_factory.mktemp("redis"), free_port()
    server = RedisServer(folder, port, folder / "log")
    server.start()
    yield port
    server.stop()


@pytest.fixture
def store(redis_port: int) -> Iterator[Any]:
    with redis.Redis(port=redis_port) as client:
        client.flushall()
        yield client


@pytest.fixture
async def world(database_url: str, store: Any, redis_port: int) -> AsyncIterator[World]:
    tree = settings_of().model_dump(mode="json")
    tree["redis"]["port"] = redis_port
    tree["features"] = {
        "enabled": True,
        "enrich": [
            {"service": "desk", "entity": "header: x-e", "template": "support_desk"},
            {"service": "shared", "entity": "header: x-s", "tenants": ["listed"]},
        ],
        "services": {
            "desk": {"views": {"profile": {"features": {"tier": {"type": "string"}}}}},
            "shared": {
                "keys": {"country": {"value": "entity"}},
                "views": {"countries": {"features": {"name": {"type": "string"}}}},
            },
        },
    }
    async with running(database_url, parse_settings(tree, "test")) as made:
        yield made


def _write(store: Any, tenant: str, entity: str, tier: str) -> None:
    key = OWN_KEYS.hash_key(tenant, OWN_KEYS.parse(entity))
    seconds = int(START_S)
    varint = bytearray()
    while seconds >= 0x80:
        varint.append(seconds & 0x7F | 0x80)
        seconds >>= 7
    varint.append(seconds)
    value = struct.pack("<BB", 0x12, len(tier)) + tier.encode()
    moment = b"\x08" + bytes(varint)
    store.hset(
        key, mapping={value_field("profile", "tier"): value, timestamp_field("profile"): moment}
    )


async def test_a_tenant_reads_and_deletes_its_own(world: World, store: Any) -> None:
    own, path = world.keys["acme", Role.TENANT_ADMIN], "/v1/tenant/features/desk"
    _write(store, "acme", "10/23", "gold")
    _write(store, "other", "10/23", "silver")
    store.sadd(TENANTS, "acme")
    store.zadd("weir:tail:queue:acme", {"acme/10%2F23": 3, "acme/other": 1})
    store.zadd(TAKEN, {"acme/10%2F23": 1.0})
    answer = await world.ask("GET", path, own, params={"entity": "10/23"})
    assert answer.status_code == 200, answer.text
    assert answer.json()["values"] == {"tier": "gold"}
    assert answer.json()["written_s"] == START_S
    gone = await world.ask("DELETE", path, own, params={"entity": "10/23"})
    assert (gone.status_code, gone.json()["deleted"]) == (200, True)
    again = await world.ask("GET", path, own, params={"entity": "10/23"})
    assert (again.json()["outcome"], again.json()["values"]) == ("missing", {"tier": None})
    assert store.zrange("weir:tail:queue:acme", 0, -1) == [b"acme/other"]
    assert store.zcard(TAKEN) == 0
    other = world.keys["other", Role.TENANT_ADMIN]
    kept = await world.ask("GET", path, other, params={"entity": "10/23"})
    assert kept.json()["values"] == {"tier": "silver"}
    entry = read_audit(world.store.engine, tenant_id="acme").items[0]
    assert (entry.action, entry.object) == ("features.delete", "features:desk")
    assert "10/23" not in str(entry)


async def test_a_tenant_sees_the_services_that_are_for_it(world: World) -> None:
    listed = await world.ask("GET", "/admin/v1/tenants/listed/features")
    assert {each["name"]: each["deletable"] for each in listed.json()["data"]} == {
        "desk": True,
        "shared": False,
    }
    own = await world.ask("GET", "/v1/tenant/features", world.keys["acme", Role.READ_ONLY])
    assert [each["name"] for each in own.json()["data"]] == ["desk"]
    path = "/v1/tenant/features/shared"
    key = world.keys["acme", Role.TENANT_ADMIN]
    answer = await world.ask("GET", path, key, params={"entity": "DE"})
    assert answer.status_code == 404


async def test_rows_that_are_not_of_one_tenant_are_not_deleted(world: World) -> None:
    path = "/admin/v1/tenants/listed/features/shared"
    answer = await world.ask("DELETE", path, params={"entity": "DE"})
    assert answer.status_code == 403


@pytest.mark.parametrize("entity", ["", "x" * 300, "\x00"])
async def test_what_is_no_entity_is_a_400(entity: str, world: World) -> None:
    own = world.keys["acme", Role.TENANT_ADMIN]
    answer = await world.ask("GET", "/v1/tenant/features/desk", own, params={"entity": entity})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "entity")


async def test_without_the_store_it_is_a_503_and_nothing_is_noted(
    database_url: str, tmp_path: Path
) -> None:
    tree = settings_of().model_dump(mode="json")
    tree["redis"]["port"] = free_port()
    tree["features"] = {
        "enabled": True,
        "enrich": [{"service": "desk", "entity": "header: x-e"}],
        "services": {"desk": {"views": {"profile": {"features": {"tier": {"type": "string"}}}}}},
    }
    async with running(database_url, parse_settings(tree, "test")) as world:
        own, path = world.keys["acme", Role.TENANT_ADMIN], "/v1/tenant/features/desk"
        before = len(read_audit(world.store.engine).items)
        for method in ("GET", "DELETE"):
            answer = await world.ask(method, path, own, params={"entity": "1"})
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "redis_away")
            assert int(answer.headers["retry-after"]) >= 1
        spending = await world.ask("GET", "/v1/tenant/budget/spending", own)
        assert spending.status_code == 503
        assert len(read_audit(world.store.engine).items) == before
