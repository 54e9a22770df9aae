"""What only shows with a database that has several writers: races, on a real PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.deployments.control.world import World, running, settings_of
from weir.database import migrate, open_database
from weir.tenancy import Role


@pytest.fixture
async def world(postgresql: Any) -> AsyncIterator[World]:
    url = postgresql.new_database()
    engine = open_database(url)
    migrate(engine)
    engine.dispose()
    async with running(url, settings_of()) as made:
        yield made


async def test_of_changes_of_one_version_at_once_one_wins(world: World) -> None:
    path, headers = "/admin/v1/tenants/acme", {"if-match": '"1"'}
    answers = await asyncio.gather(
        *(
            world.ask("PATCH", path, json={"weight": number + 1}, headers=headers)
            for number in range(12)
        )
    )
    assert sorted(answer.status_code for answer in answers) == [200] + [412] * 11
    assert world.store.tenant("acme").version == 2


async def test_the_same_request_many_times_at_once_is_one(world: World) -> None:
    headers = {"idempotency-key": "once"}
    keys = [
        world.ask("POST", "/admin/v1/tenants/acme/keys", json={"name": "a"}, headers=headers)
        for _ in range(8)
    ]
    answers = await asyncio.gather(*keys)
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["secret"] for answer in answers}) == 1
    assert len(world.store.keys("acme").items) == len(Role) + 1
    headers = {"idempotency-key": "tenant"}
    made = await asyncio.gather(
        *(
            world.ask("POST", "/admin/v1/tenants", json={"id": "shop"}, headers=headers)
            for _ in range(8)
        )
    )
    assert [answer.status_code for answer in made] == [201] * 8


async def test_what_a_database_refuses_is_no_failure(world: World) -> None:
    body = {"id": "shop", "labels": {"a": "\x00"}}
    answer = await world.ask("POST", "/admin/v1/tenants", json=body)
    assert answer.status_code in (201, 400), answer.text
    for query in ({"tenant": "a"}, {"limit": "1"}):
        assert (await world.ask("GET", "/admin/v1/audit", params=query)).status_code == 200
    usage = await world.ask("GET", "/admin/v1/usage", params={"by": "day,class", "since": "7d"})
    slo = await world.ask("GET", "/admin/v1/slo", params={"by": "day,tenant"})
    cost = await world.ask("GET", "/admin/v1/cost", params={"by": "day"})
    assert [answer.status_code for answer in (usage, slo, cost)] == [200] * 3
