"""Health, readiness, models, metrics and status."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from deployments.gateway.metrics_page import merge_engines
from deployments.gateway.pages import list_replicas
from deployments.testing.world import KEY, http_world
from router.tiers import TierUse
from router.types import ReplicaStats
from weir.settings import ModelSettings, Settings, TenantSettings
from weir.settings.server import MetricsSettings
from weir.settings.tree import ServerSettings
from weir.tenancy import hash_key

TENANT = {"authorization": "Bearer weir_test-key"}
PLATFORM = {"authorization": "Bearer internal"}


async def test_ready_only_with_replicas(world: Any) -> None:
    async with world.session.get(world.url + "/ready") as response:
        assert response.status == 503
    await world.add_replica("a")
    async with world.session.get(world.url + "/ready") as response:
        assert await response.json() == {"status": "ready"}, "strangers learn no more"
    async with world.session.get(world.url + "/ready", headers=TENANT) as response:
        assert await response.json() == {"status": "ready", "replicas": {"m": 1}}


async def test_ready_names_what_is_missing_to_those_who_may_know(encoder: Any) -> None:
    async def away() -> bool:
        return False

    watcher = {"authorization": "Bearer watch"}
    settings = Settings(
        server=ServerSettings(metrics=MetricsSettings(key_sha256=(hash_key("watch"),))),
        models=(ModelSettings(name="m", source="x"),),
        tenants=(TenantSettings(id="t", key_sha256=(hash_key(KEY),), models=("m",)),),
    )
    async with http_world(settings, {"m": encoder}, services={"Redis": away}) as world:
        told = [await _ready(world, headers) for headers in ({}, TENANT, watcher)]
        assert {status for status, _ in told} == {503}
        stranger, tenant, all_of_it = (body["error"]["message"] for _, body in told)
        assert "'m'" not in stranger
        assert tenant == f"{stranger} No replica of 'm' is up."
        named = "No replica of 'm' is up (1 running). Redis does not answer."
        assert all_of_it == f"{stranger} {named}"
        await world.add_replica("a")
        up = {"status": "ready", "replicas": {"m": 1}}
        assert await _ready(world, TENANT) == (200, up)
        assert await _ready(world, watcher) == (200, up | {"missing": ["Redis does not answer."]})
        async with world.session.get(world.url + "/metrics", headers=watcher) as response:
            assert response.status == 200


async def test_ready_tells_watchers_how_old_the_directory_is(encoder: Any) -> None:
    settings = Settings(
        models=(ModelSettings(name="m", source="x"),),
        tenants=(TenantSettings(id="t", key_sha256=(hash_key(KEY),)),),
    )
    known = {"revision": 7, "age_s": 0.2}
    async with http_world(settings, {"m": encoder}, describe=lambda: known) as world:
        await world.add_replica("a")
        up = {"status": "ready", "replicas": {"m": 1}}
        assert await _ready(world, PLATFORM) == (200, up | {"directory": known})
        assert await _ready(world, TENANT) == (200, up)


async def test_a_key_may_be_any_text(encoder: Any) -> None:
    """Sent as UTF-8, as most clients do, or as Latin-1, as browsers do."""
    settings = Settings(
        models=(ModelSettings(name="m", source="x"),),
        tenants=(TenantSettings(id="t", key_sha256=(hash_key("weir_schlüssel"),)),),
    )
    async with http_world(settings, {"m": encoder}) as world, httpx.AsyncClient() as client:
        for encoding in ("utf-8", "latin-1"):
            key = "weir_schlüssel".encode(encoding)
            for headers in ({b"authorization": b"Bearer " + key}, {b"x-api-key": key}):
                page = await client.get(f"{world.url}/v1/models", headers=headers)
                chat = await client.post(
                    f"{world.url}/v1/chat/completions", json={"model": "no"}, headers=headers
                )
                assert (page.status_code, chat.status_code) == (200, 400)


async def _ready(world: Any, headers: dict[str, str]) -> tuple[int, Any]:
    async with world.session.get(world.url + "/ready", headers=headers) as response:
        return response.status, await response.json()


async def test_a_page_that_fails_is_an_error_like_any_other(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> None:
        raise ValueError

    monkeypatch.setattr(world.model.router, "snapshot", broken)
    async with world.session.get(world.url + "/weir/status", headers=PLATFORM) as response:
        assert response.status == 500
        assert (await response.json())["error"]["code"] == "internal_error"


async def test_status_is_for_the_platforms_own_token(world: Any) -> None:
    await world.add_replica("a")
    url = world.url + "/weir/status"
    for headers in ({}, {"authorization": "Bearer weir_test-key"}):
        async with world.session.get(url, headers=headers) as refused:
            assert refused.status == 401
    right = {"authorization": "Bearer internal"}
    status = await (await world.session.get(url, headers=right)).json()
    replica = status["deployments"][0]["replicas"][0]
    assert (replica["state"], replica["replica_id"]) == ("RUNNING", "a")
    assert {"kv_use", "running", "waiting", "address"} <= set(replica)
    assert (replica["mfu"], replica["mbu"]) == (None, None)


async def test_what_a_replica_makes_of_its_device_is_shown(world: Any) -> None:
    await world.add_replica("a")
    world.model.router.update_stats("a", ReplicaStats(mfu=0.25, mbu=0.5))
    async with world.session.get(world.url + "/weir/status", headers=PLATFORM) as response:
        replica = (await response.json())["deployments"][0]["replicas"][0]
    assert (replica["mfu"], replica["mbu"]) == (0.25, 0.5)
    async with world.session.get(world.url + "/metrics", headers=PLATFORM) as response:
        text = await response.text()
    name = world.model.name
    assert f'weir_replica_mfu_ratio{{model="{name}",replica="a"}} 0.25' in text
    assert f'weir_replica_mbu_ratio{{model="{name}",replica="a"}} 0.5' in text


async def test_errors_have_openais_shape_everywhere(world: Any) -> None:
    for method, path, status in (
        ("GET", "/nothing", 404),
        ("GET", "/v1/chat/completions", 405),
        ("DELETE", "/v1/models", 405),
        ("GET", "/v1/models", 401),
    ):
        response = await world.session.request(method, world.url + path)
        assert response.status == status, (method, path)
        assert set((await response.json())["error"]) == {"message", "type", "param", "code"}


async def test_openapi_describes_the_hot_path(world: Any) -> None:
    spec = await (await world.session.get(world.url + "/openapi.json")).json()
    body = spec["paths"]["/v1/chat/completions"]["post"]["requestBody"]
    reference = body["content"]["application/json"]["schema"]["$ref"]
    assert reference.rpartition("/")[2] in spec["components"]["schemas"]


async def test_metrics_count_requests(world: Any) -> None:
    replica = await world.add_replica("a")
    headers = {"authorization": "Bearer weir_test-key", "x-request-id": "q"}
    body = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
    pending = asyncio.ensure_future(
        world.session.post(world.url + "/v1/chat/completions", json=body, headers=headers)
    )
    while "q" not in replica.generator.started:  # noqa: ASYNC110
        await asyncio.sleep(0.005)
    replica.generator.end("q", "x", count=5)
    await (await pending).read()
    text = await (await world.session.get(world.url + "/metrics", headers=PLATFORM)).text()
    assert 'weir_output_tokens_total{model="m",tenant="t"} 5.0' in text
    assert 'weir_replicas{model="m"} 1.0' in text


async def test_how_full_a_replicas_tiers_are_is_shown(world: Any) -> None:
    await world.add_replica("a")
    use = TierUse(memory_bytes=50, memory_limit_bytes=200, disk_bytes=30, disk_limit_bytes=40)
    world.model.router.update_stats("a", ReplicaStats(tiers=use))
    async with world.session.get(world.url + "/weir/status", headers=PLATFORM) as response:
        replica = (await response.json())["deployments"][0]["replicas"][0]
    assert (replica["kv_memory_use"], replica["kv_disk_use"]) == (0.25, 0.75)
    world.model.router.update_stats("a", ReplicaStats())
    async with world.session.get(world.url + "/weir/status", headers=PLATFORM) as response:
        assert "kv_memory_use" not in (await response.json())["deployments"][0]["replicas"][0]


def test_metrics_of_tiers_are_told_apart_by_replica() -> None:
    text = (
        "# HELP weir_kv_tier_bytes b\n# TYPE weir_kv_tier_bytes gauge\n"
        'weir_kv_tier_bytes{engine="0",tier="disk"} 7.0\n'
    )
    merged = merge_engines({"a": text, "b": text.replace("7.0", "8.0")})
    assert 'weir_kv_tier_bytes{replica="a",engine="0",tier="disk"} 7.0' in merged
    assert 'weir_kv_tier_bytes{replica="b",engine="0",tier="disk"} 8.0' in merged


def test_vllm_metrics_are_told_apart_by_replica() -> None:
    text = (
        "# HELP vllm:running r\n# TYPE vllm:running gauge\n"
        'vllm:running{engine="0"} 2.0\n'
        "# HELP python_gc g\n# TYPE python_gc counter\npython_gc_total 5\n"
    )
    merged = merge_engines({"a": text, "b": text})
    assert merged.count("# TYPE vllm:running gauge") == 1
    assert 'vllm:running{replica="a",engine="0"} 2.0' in merged
    assert 'vllm:running{replica="b",engine="0"} 2.0' in merged
    assert "python_gc" not in merged


def test_replicas_that_only_serve_knows_are_listed_too() -> None:
    known = [{"replica_id": "a"}]
    assert list_replicas({"RUNNING": 2, "STARTING": 1}, known) == [
        {"state": "RUNNING", "replica_id": "a"},
        {"state": "RUNNING", "replica_id": ""},
        {"state": "STARTING", "replica_id": ""},
    ]
