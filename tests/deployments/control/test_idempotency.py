"""A request that is sent again with its idempotency key changes nothing again."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.deployments.control.world import World
from weir.tenancy import Role

_KEYS = "/admin/v1/tenants/acme/keys"


async def test_the_same_request_gets_the_first_answer(world: World) -> None:
    headers = {"idempotency-key": "once"}
    first = await world.ask("POST", _KEYS, json={"name": "a"}, headers=headers)
    again = await world.ask("POST", _KEYS, json={"name": "a"}, headers=headers)
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.json() == first.json()
    assert again.headers["etag"] == first.headers["etag"]
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    assert len(world.store.keys("acme").items) == len(Role) + 1


async def test_many_at_once_are_one(world: World) -> None:
    headers = {"idempotency-key": "at once"}
    answers = await asyncio.gather(
        *(world.ask("POST", _KEYS, json={"name": "b"}, headers=headers) for _ in range(12))
    )
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["secret"] for answer in answers}) == 1
    assert sum("idempotent-replayed" not in answer.headers for answer in answers) == 1
    assert len(world.store.keys("acme").items) == len(Role) + 1


async def test_a_tenant_made_many_times_at_once_is_made_once(world: World) -> None:
    headers = {"idempotency-key": "tenant"}
    answers = await asyncio.gather(
        *(
            world.ask("POST", "/admin/v1/tenants", json={"id": "shop"}, headers=headers)
            for _ in range(8)
        )
    )
    assert [answer.status_code for answer in answers] == [201] * 8
    without = await world.ask("POST", "/admin/v1/tenants", json={"id": "shop"})
    assert without.status_code == 409


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", _KEYS, {"name": "other"}),
        ("POST", "/admin/v1/tenants/other/keys", {"name": "a"}),
        ("POST", f"{_KEYS}?x=1", {"name": "a"}),
    ],
)
async def test_another_request_with_the_key_is_a_422(
    method: str, path: str, body: object, world: World
) -> None:
    headers = {"idempotency-key": "mine"}
    await world.ask("POST", _KEYS, json={"name": "a"}, headers=headers)
    answer = await world.ask(method, path, json=body, headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "idempotency_key_reused")
    assert len(world.store.keys().items) == 2 * len(Role) + 1


async def test_keys_of_different_callers_never_meet(world: World) -> None:
    headers = {"idempotency-key": "shared"}
    made = [
        await world.ask(
            "POST",
            "/v1/tenant/keys",
            world.keys[tenant, Role.TENANT_ADMIN],
            json={"name": "a"},
            headers=headers,
        )
        for tenant in ("acme", "other")
    ]
    assert [answer.json()["tenant"] for answer in made] == ["acme", "other"]


async def test_what_failed_is_not_kept(world: World) -> None:
    headers = {"idempotency-key": "retry"}
    path = "/admin/v1/tenants/later/keys"
    assert (await world.ask("POST", path, json={}, headers=headers)).status_code == 404
    await world.ask("POST", "/admin/v1/tenants", json={"id": "later"})
    assert (await world.ask("POST", path, json={}, headers=headers)).status_code == 201


async def test_after_a_day_it_is_forgotten(world: World) -> None:
    headers = {"idempotency-key": "old"}
    first = await world.ask("POST", _KEYS, json={}, headers=headers)
    world.clock.now_s += 24 * 3600 + 1
    second = await world.ask("POST", _KEYS, json={}, headers=headers)
    assert second.json()["id"] != first.json()["id"]


@pytest.mark.parametrize("key", ["", "   ", "x" * 256])
async def test_a_key_that_cannot_be_one_is_a_400(key: str, world: World) -> None:
    answer = await world.ask("POST", _KEYS, json={}, headers={"idempotency-key": key})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "Idempotency-Key")


async def test_the_kept_answer_shows_no_key_to_who_reads_the_database(
    world: World, tmp_path: Path
) -> None:
    headers = {"idempotency-key": "1"}
    made = await world.ask("POST", _KEYS, json={}, headers=headers)
    secret = made.json()["secret"].split("_", 2)[2].encode()
    files = [file.read_bytes() for file in tmp_path.glob("weir.db*")]
    assert files
    assert not any(secret in data for data in files)
