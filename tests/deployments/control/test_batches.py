"""Batch jobs over the API: each tenant its own, the operator all of them."""

from __future__ import annotations

import pytest
from sqlalchemy import insert

from deployments.batches.tables import batches
from tests.deployments.control.world import START_S, World
from weir.database import writing
from weir.tenancy import Role


def _make(world: World, name: str, tenant: str, status: str = "in_progress") -> None:
    row = {
        "id": name,
        "tenant": tenant,
        "key_id": "key1",
        "family": "openai",
        "endpoint": "/v1/chat/completions",
        "input_file_id": "file-1",
        "completion_window": "24h",
        "metadata": {"run": "nightly"},
        "status": status,
        "frozen": False,
        "total": 10,
        "completed": 3,
        "failed": 1,
        "prompt_tokens": 100,
        "cached_tokens": 0,
        "output_tokens": 50,
        "created_s": START_S,
        "expires_s": START_S + 86_400,
        "in_progress_s": START_S + 1,
    }
    others = (each for each in batches.c if not (each.nullable or each.primary_key))
    nothing = {each.name: 0 for each in others}
    with writing(world.store.engine) as connection:
        connection.execute(insert(batches).values(nothing | row))


@pytest.fixture
def jobs(world: World) -> World:
    for number in range(3):
        _make(world, f"batch_a{number}", "acme")
    _make(world, "batch_b0", "other", "completed")
    return world


async def test_jobs_are_listed_newest_first(jobs: World) -> None:
    everything = (await jobs.ask("GET", "/admin/v1/batches")).json()["data"]
    assert [job["id"] for job in everything] == ["batch_b0", "batch_a2", "batch_a1", "batch_a0"]
    own, path = jobs.keys["acme", Role.READ_ONLY], "/v1/tenant/batches"
    first = (await jobs.ask("GET", path, own, params={"limit": 2})).json()
    assert [job["id"] for job in first["data"]] == ["batch_a2", "batch_a1"]
    rest = (await jobs.ask("GET", path, own, params={"after": first["next"]})).json()
    assert ([job["id"] for job in rest["data"]], rest["next"]) == (["batch_a0"], None)
    assert rest["data"][0]["lines"] == {"total": 10, "completed": 3, "failed": 1}
    assert rest["data"][0]["times_s"] == {"in_progress": START_S + 1}


async def test_another_tenants_job_is_not_there(jobs: World) -> None:
    other = jobs.keys["other", Role.TENANT_ADMIN]
    for method, below in (("GET", ""), ("POST", "/cancel")):
        answer = await jobs.ask(method, f"/v1/tenant/batches/batch_a0{below}", other)
        assert answer.status_code == 404, answer.text
        answer = await jobs.ask(method, f"/admin/v1/tenants/other/batches/batch_a0{below}")
        assert answer.status_code == 404


async def test_a_job_is_cancelled_and_that_is_in_the_log(jobs: World) -> None:
    path = "/v1/tenant/batches/batch_a0/cancel"
    assert (await jobs.ask("POST", path, jobs.keys["acme", Role.READ_ONLY])).status_code == 403
    own = jobs.keys["acme", Role.TENANT_USER]
    answer = await jobs.ask("POST", path, own)
    assert (answer.status_code, answer.json()["status"]) == (200, "cancelling")
    log = (await jobs.ask("GET", "/admin/v1/audit", params={"limit": 1})).json()["data"][0]
    assert (log["action"], log["target"]) == ("batch.cancel", "batch:batch_a0")
    assert (log["before"], log["after"]) == ({"status": "in_progress"}, {"status": "cancelling"})
    ended = await jobs.ask("POST", "/admin/v1/tenants/other/batches/batch_b0/cancel")
    assert ended.status_code == 409
