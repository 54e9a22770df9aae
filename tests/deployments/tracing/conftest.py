"""Gateways whose requests are traced."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from deployments.gateway.prompts import PromptEncoder
from deployments.testing.world import KEY, World, http_world
from weir.settings import ModelSettings, Settings, TenantSettings
from weir.settings.tracing import TracingSettings
from weir.settings.tree import GatewaySettings, ServerSettings
from weir.tenancy import hash_key

Make = Callable[..., Any]


@pytest.fixture
async def traced(encoder: PromptEncoder) -> AsyncIterator[Make]:
    """Makes a world with these settings of ``tracing`` (the other arguments apart), without
    replicas yet."""
    async with contextlib.AsyncExitStack() as stack:

        async def make(
            shipping: Any = None,
            tenant: dict[str, Any] | None = None,
            enricher: Any = None,
            **tracing: Any,
        ) -> World:
            settings = Settings(
                server=ServerSettings(max_body_bytes=10_000, request_timeout_s=30),
                gateway=GatewaySettings(resume_wait_s=0.3),
                models=(ModelSettings(name="m", source="x"),),
                tenants=(TenantSettings(id="t", key_sha256=(hash_key(KEY),), **(tenant or {})),),
                tracing=TracingSettings(**{"recent": 100, "sample_ratio": 1.0, **tracing}),
            )
            world = http_world(settings, {"m": encoder}, enricher, shipping=shipping)
            return await stack.enter_async_context(world)

        yield make
