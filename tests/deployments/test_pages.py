"""Health, readiness, models, metrics and status."""

from __future__ import annotations

import asyncio
from typing import Any

from deployments.gateway.pages import list_replicas, merge_metrics


async def test_ready_only_with_replicas(world: Any) -> None:
    async with world.session.get(world.url + "/ready") as response:
        assert response.status == 503
    await world.add_replica("a")
    response = await world.session.get(world.url + "/ready")
    assert await response.json() == {"status": "ready", "replicas": {"m": 1}}


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
    text = await (await world.session.get(world.url + "/metrics")).text()
    assert 'weir_output_tokens_total{model="m",tenant="t"} 5.0' in text
    assert 'weir_replicas{model="m"} 1.0' in text


def test_vllm_metrics_are_told_apart_by_replica() -> None:
    text = (
        "# HELP vllm:running r\n# TYPE vllm:running gauge\n"
        'vllm:running{engine="0"} 2.0\npython_gc_total 5\n'
    )
    merged = merge_metrics({"a": text, "b": text})
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
