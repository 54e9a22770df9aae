"""Each contract test runs twice: over real sockets, and in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from deployments.gateway.prompts import PromptEncoder
from deployments.testing.cluster import Cluster
from deployments.testing.in_memory import memory_cluster
from deployments.testing.kinds import TONE
from deployments.testing.over_sockets import socket_cluster
from deployments.testing.words import word_encoder
from weir.settings import (
    ModelSettings,
    PriceSettings,
    RoutingSettings,
    Settings,
    TenantSettings,
)
from weir.settings.routing import DisaggregationSettings
from weir.settings.tracing import TracingSettings
from weir.tenancy import hash_key
from weir.testing import virtual_time

PRICE = PriceSettings(
    input_usd_per_million_tokens=3.0,
    cached_input_usd_per_million_tokens=1.0,
    output_usd_per_million_tokens=10.0,
)
Scenario = Callable[[Cluster], Awaitable[None]]


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> PromptEncoder:
    return word_encoder(tmp_path_factory.mktemp("words"))


def contract_settings(admission: dict[str, Any], rule: str = "adaptive") -> Settings:
    """One model, two tenants, and one with quotas and a budget that are never reached, and one
    whose prompts traces may tell; every request is traced, and everything else as shipped.
    ``rule``: of disaggregation."""
    tenants = (
        *(TenantSettings(id=t, key_sha256=(hash_key(t),)) for t in ("one", "two")),
        TenantSettings.model_validate(
            {
                "id": "counted",
                "key_sha256": [hash_key("counted")],
                "quotas": {"output_tokens_per_day": 10_000, "concurrent_requests": 100},
                "model_quotas": {"m": {"requests_per_day": 100}},
                "budget": {"usd_per_month": 1},
            }
        ),
        TenantSettings(id="told", key_sha256=(hash_key("told"),), trace_content=True),
    )
    routing = RoutingSettings(disaggregation=DisaggregationSettings(rule=rule))
    model = ModelSettings(name="m", source="x", price=PRICE, routing=routing, adapters=(TONE,))
    tracing = TracingSettings(recent=10_000, sample_ratio=1.0)
    return Settings(models=(model,), tenants=tenants, admission=admission, tracing=tracing)


@pytest.fixture(params=["sockets", "virtual"])
def play(
    request: pytest.FixtureRequest, encoder: PromptEncoder, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., None]:
    """Runs a scenario; a test of one kind has replicas whose model can do that. ``hasty``: over
    sockets, silence counts as a failure sooner."""
    kind = getattr(request.node, "callspec", None) and request.node.callspec.params.get("kind")

    def run(
        scenario: Scenario,
        admission: dict[str, Any] | None = None,
        hasty: bool = False,
        rule: str = "adaptive",
    ) -> None:
        settings = contract_settings(admission or {}, rule)
        over_sockets = request.param == "sockets"
        if over_sockets and hasty:
            monkeypatch.setattr("deployments.gateway.connection.SILENCE_S", 0.6)
            monkeypatch.setattr("deployments.gateway.connection.STEP_S", 0.6)
            monkeypatch.setattr("deployments.streams._REPEAT_LOAD_S", 0.1)

        async def main() -> None:
            make = socket_cluster if over_sockets else memory_cluster
            async with make(settings, encoder) as cluster:
                if kind is not None:
                    cluster.tasks = kind.tasks
                await scenario(cluster)

        if over_sockets:
            asyncio.run(main())
        else:
            virtual_time.run(main())

    return run
