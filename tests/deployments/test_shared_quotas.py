"""Two gateways over one Redis, as clients see them."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from deployments.gateway.prompts import PromptEncoder
from deployments.testing.cluster import until
from deployments.testing.world import KEY, http_world
from tests.deployments.accounts.conftest import free_port, started
from tests.deployments.accounts.gateways import gateways
from weir.settings import Settings
from weir.tenancy import hash_key

CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "hello world"}], "max_tokens": 10}


@pytest.mark.parametrize("stream", [False, True])
async def test_a_quota_is_one_quota_at_every_gateway(
    encoder: PromptEncoder, tmp_path: Path, stream: bool
) -> None:
    server = started(tmp_path, free_port())
    tenant = {"id": "t", "key_sha256": [hash_key(KEY)], "quotas": {"requests_per_day": 3}}
    models = [{"name": "m", "source": "x"}]
    settings = Settings.model_validate({"models": models, "tenants": [tenant]})
    try:
        async with AsyncExitStack() as stack:
            both = await stack.enter_async_context(gateways(server.port, 2))
            worlds = []
            for gateway in both:
                made = http_world(settings, {"m": encoder}, account=gateway.account)
                worlds.append(await stack.enter_async_context(made))
                await worlds[-1].add_replica("a")
            left = []
            for number in range(3):
                world = worlds[number % 2]
                pending = asyncio.ensure_future(world.post({**CHAT, "stream": stream}))
                generator: Any = world.replicas[0].generator
                await until(lambda: "r1" in generator.started)  # noqa: B023 - awaited at once
                generator.end("r1", "yes", count=2)
                response = await pending
                await response.read()
                assert response.status == 200
                left.append(response.headers["x-ratelimit-remaining-requests"])
            assert left == ["2", "1", "0"]
            for world in worlds:
                refused = await world.post(dict(CHAT))
                assert refused.status == 429
                assert (await refused.json())["error"]["code"] == "rate_limit_exceeded"
    finally:
        server.stop()
