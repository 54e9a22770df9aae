"""Four gateways behind the front door, and a real Prometheus: nothing is counted twice."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from deployments.gateway.exposition import families, labelled, merged
from deployments.gateway.metrics_page import OWN_PATH, PART_PATH, Peers
from deployments.gateway.prompts import PromptEncoder
from deployments.haproxy import FrontDoor
from deployments.haproxy_config import Target
from deployments.testing.counting import CountingGenerator
from deployments.testing.world import KEY, TOKEN, World, http_world
from weir.settings import ModelSettings, Settings, TenantSettings
from weir.settings.server import MetricsSettings
from weir.settings.tree import ServerSettings
from weir.tenancy import hash_key
from weir.testing.prometheus import Prometheus, installed, prometheus

GATEWAYS, REQUESTS, OUTPUT_TOKENS = 4, 41, 7
OTHER_KEY = "weir_another-key"
ENGINE = (
    "# HELP vllm:prompt_tokens_total p\n# TYPE vllm:prompt_tokens_total counter\n"
    'vllm:prompt_tokens_total{engine="0"} 100.0\n'
)

needs_prometheus = pytest.mark.skipif(
    not installed(), reason="Debian's package prometheus is not installed"
)


async def _engine_probes(scope: Any, receive: Any, send: Any) -> None:
    body = ENGINE.encode()
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _settings() -> Settings:
    tenants = [("t", KEY), ("u", OTHER_KEY)]
    return Settings(
        server=ServerSettings(request_timeout_s=30),
        models=(ModelSettings(name="m", source="x"),),
        tenants=tuple(TenantSettings(id=name, key_sha256=(hash_key(k),)) for name, k in tenants),
    )


@pytest.fixture
async def worlds(encoder: PromptEncoder) -> AsyncIterator[list[World]]:
    """Gateways that share two replicas and know each other."""
    at: dict[str, str] = {}

    async def gateways() -> dict[str, str]:
        return at

    async with AsyncExitStack() as stack:
        made = []
        for number in range(GATEWAYS):
            peers = Peers(f"g{number}", gateways, GATEWAYS)
            opened = http_world(_settings(), {"m": encoder}, peers=peers)
            world = await stack.enter_async_context(opened)
            at[f"g{number}"] = world.url.removeprefix("http://")
            made.append(world)
        made[0].probes = _engine_probes
        for name in ("a", "b"):
            replica = await made[0].add_replica(name, CountingGenerator(0.001))
            for world in made[1:]:
                members = world.model.router.members
                world.model.router.set_replicas((*members, replica.info))
                await world.model.fleet.connection(name)
        yield made


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def _ask(world: World, key: str, number: int, path: str = "/v1/completions") -> int:
    body = {"model": "m", "prompt": "hello world", "max_tokens": OUTPUT_TOKENS, "ignore_eos": True}
    headers = {"authorization": f"Bearer {key}", "x-request-id": f"r{number}"}
    async with world.session.post(world.url + path, json=body, headers=headers) as response:
        await response.read()
        return int(response.status)


async def _send(worlds: list[World]) -> dict[str, int]:
    """Requests to all gateways: how many of each tenant."""
    sent = {"t": 0, "u": 0}
    for number in range(REQUESTS):
        tenant, key = ("u", OTHER_KEY) if number % 3 == 0 else ("t", KEY)
        assert await _ask(worlds[number % GATEWAYS], key, number) == 200
        sent[tenant] += 1
    assert await _ask(worlds[0], KEY, REQUESTS, "/v1/completions/") == 200
    sent["t"] += 1
    return sent


async def _read(world: World, path: str = "/metrics") -> str:
    headers = {"authorization": f"Bearer {TOKEN}"}
    async with world.session.get(world.url + path, headers=headers) as response:
        assert response.status == 200
        return await response.text()


def _values(text: str, name: str) -> list[float]:
    return [
        float(line.rpartition(" ")[2])
        for line in text.splitlines()
        if line.startswith((f"{name}{{", f"{name} "))
    ]


@needs_prometheus
@pytest.mark.timeout(120)
async def test_sums_over_four_gateways_are_what_was_sent(
    worlds: list[World], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WEIR_INTERNAL_TOKEN", TOKEN)
    metrics = MetricsSettings(port=_free_port())
    server = ServerSettings(port=_free_port(), metrics=metrics)
    front = FrontDoor(server, tmp_path / "haproxy", one_active=False)
    targets = [
        Target(f"g{n}", "127.0.0.1", int(w.url.rpartition(":")[2])) for n, w in enumerate(worlds)
    ]
    await asyncio.to_thread(front.start)
    front.route_to(targets)
    try:
        sent = await _send(worlds)
        scrape = {
            "job_name": "weir",
            "static_configs": [{"targets": [f"127.0.0.1:{metrics.port}"]}],
        }
        await asyncio.to_thread(_compare, tmp_path, scrape, sent)
    finally:
        await asyncio.to_thread(front.stop)


def _compare(folder: Path, scrape: dict[str, Any], sent: dict[str, int]) -> None:
    with prometheus(folder / "prometheus", [scrape]) as server:
        server.wait(lambda p: p.value("count(weir_gateway_up == 1)") == GATEWAYS, 30)
        # Several scrapes, each answered by whichever gateway has the fewest connections.
        server.wait(lambda p: (p.value("count_over_time(up[1m])") or 0) >= 5, 30)
        _check_sums(server, sent)
        # No counter jumps back and forth between gateways.
        assert server.value("sum(resets(weir_requests_total[1m]))") == 0
        assert server.value("sum(changes(weir_requests_total[1m]))") == 0


def _check_sums(server: Prometheus, sent: dict[str, int]) -> None:
    by_tenant = {
        labels["tenant"]: value
        for labels, value in server.query('sum by (tenant) (weir_requests_total{status="200"})')
    }
    assert by_tenant == sent
    whole = sum(sent.values())
    assert server.value("sum(weir_output_tokens_total)") == whole * OUTPUT_TOKENS
    assert server.value("sum(weir_time_to_first_token_seconds_count)") == whole
    assert server.value('sum(weir_slo_requests_total{slo="availability"})') == whole
    assert server.value('sum(weir_slo_requests_total{slo="ttft",priority="standard"})') == whole
    # What all gateways see alike, and what engines say, is there once.
    assert server.value("sum(weir_replicas)") == 2
    assert server.value("sum(weir_engine_up)") == 2
    assert server.value("sum(vllm:prompt_tokens_total)") == 200
    assert server.value("count(weir_gateways_wanted)") == 1


async def test_every_gateway_tells_the_same(worlds: list[World]) -> None:
    sent = await _send(worlds)
    for world in worlds:
        text = await _read(world)
        assert sum(_values(text, "weir_requests_total")) == sum(sent.values())
        assert _values(text, "vllm:prompt_tokens_total") == [100.0, 100.0]
        assert _values(text, "weir_gateways_wanted") == [GATEWAYS]
    parts = [await _read(world, PART_PATH) for world in worlds]
    for name, wanted in (
        ("weir_requests_total", sum(sent.values())),
        ("vllm:prompt_tokens_total", 200),
        ("weir_gateways_wanted", GATEWAYS),
        ("weir_gateway_up", GATEWAYS),
    ):
        assert sum(value for part in parts for value in _values(part, name)) == wanted
    own = [sum(_values(await _read(world, OWN_PATH), "weir_requests_total")) for world in worlds]
    assert sum(own) == sum(sent.values())
    assert min(own) >= REQUESTS // GATEWAYS


async def test_openmetrics_has_exemplars_and_the_same_numbers(worlds: list[World]) -> None:
    """Prometheus asks for it; its own test above reads it."""
    sent = await _send(worlds)
    own = worlds[1].gateway.metrics
    own.requests.labels("t", "m", "chat", "200", "").inc(1, {"trace_id": "abc"})
    headers = {"authorization": f"Bearer {TOKEN}", "accept": "application/openmetrics-text"}
    async with worlds[0].session.get(worlds[0].url + "/metrics", headers=headers) as response:
        assert response.headers["content-type"].startswith("application/openmetrics-text")
        text = await response.text()
    found = {
        (sample.name, sample.labels.get("gateway"), sample.labels.get("replica")): sample
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.labels.get("endpoint", "chat") == "chat"
    }
    example = found["weir_requests_total", "g1", None].exemplar
    assert example is not None
    assert example.labels == {"trace_id": "abc"}
    assert found["vllm:prompt_tokens_total", None, "a"].value == 100
    numbers = [
        float(line.partition(" # ")[0].rpartition(" ")[2])
        for line in text.splitlines()
        if line.startswith("weir_requests_total{")
    ]
    assert sum(numbers) == sum(sent.values()) + 1


async def test_a_gateway_that_does_not_answer_is_told_of(
    worlds: list[World], monkeypatch: pytest.MonkeyPatch
) -> None:
    session = worlds[0].session
    whole = session.get
    lost = worlds[3].url

    def get(url: str, **options: Any) -> Any:
        if url.startswith(lost):
            raise aiohttp.ClientConnectionError
        return whole(url, **options)

    monkeypatch.setattr(session, "get", get)
    text = await _read(worlds[0])
    assert 'weir_gateway_up{gateway="g3"} 0.0' in text
    assert 'weir_gateway_up{gateway="g0"} 1.0' in text
    assert "weir_gateways_wanted 4.0" in text


async def test_tenants_do_not_see_a_gateways_own_metrics(worlds: list[World]) -> None:
    headers = {"authorization": f"Bearer {KEY}"}
    async with worlds[0].session.get(worlds[0].url + OWN_PATH, headers=headers) as response:
        assert response.status == 401


def test_labels_are_added_to_samples_only() -> None:
    text = '# HELP a b\n# TYPE a counter\na 1.0\na{x="y {z"} 2.0\n'
    told = labelled(text, {"gateway": "g"})
    assert told.splitlines()[2:] == ['a{gateway="g"} 1.0', 'a{gateway="g",x="y {z"} 2.0']
    assert told.splitlines()[:2] == text.splitlines()[:2]
    assert labelled(text, {}) == text


def test_a_metric_of_two_parts_is_described_once() -> None:
    one = "# HELP a b\n# TYPE a gauge\na 1.0\n# HELP c d\n# TYPE c gauge\nc 3.0\n"
    two = "# HELP a b\n# TYPE a gauge\na 2.0\n"
    told = merged([families(one), families(two)])
    assert told.splitlines() == [
        "# HELP a b",
        "# TYPE a gauge",
        "a 1.0",
        "a 2.0",
        "# HELP c d",
        "# TYPE c gauge",
        "c 3.0",
    ]


def _series(text: str) -> list[str]:
    """Without those that tell when another one began: the platform switches them off."""
    return [
        line
        for line in text.splitlines()
        if not line.startswith("#") and "_created" not in line.partition("{")[0]
    ]


async def _ask_for_all(count: int, most: int, encoder: PromptEncoder) -> list[str]:
    """One request of each of so many tenants; the gateway's series."""
    settings = _settings().model_copy(
        update={
            "tenants": tuple(
                TenantSettings(id=f"t{n}", key_sha256=(hash_key(f"weir_key-{n}"),))
                for n in range(count)
            ),
            "server": ServerSettings(metrics=MetricsSettings(max_tenants=most)),
        }
    )
    async with http_world(settings, {"m": encoder}) as world:
        await world.add_replica("a", CountingGenerator(0.001))
        for first in range(0, count, 32):
            ids = range(first, min(first + 32, count))
            asked = (_ask(world, f"weir_key-{n}", n) for n in ids)
            assert set(await asyncio.gather(*asked)) == {200}
        return _series(await _read(world, OWN_PATH))


async def test_a_tenant_costs_few_series(encoder: PromptEncoder) -> None:
    """docs/observability.md has these numbers."""
    one = await _ask_for_all(1, 2000, encoder)
    all_of_them = await _ask_for_all(1000, 2000, encoder)
    per_tenant = (len(all_of_them) - len(one)) / 999
    assert per_tenant == len([line for line in one if 'tenant="t0"' in line]) == 12
    assert len(one) < 250
    assert len(all_of_them) < 12_300


async def test_tenants_beyond_the_bound_share_their_series(encoder: PromptEncoder) -> None:
    series = await _ask_for_all(40, 10, encoder)
    of_tenants = {label for line in series for label in re.findall(r'tenant="([^"]*)"', line)}
    assert of_tenants == {f"t{n}" for n in range(10)} | {"_other"}
    requests = {
        line.rpartition(" ")[0]: float(line.rpartition(" ")[2])
        for line in series
        if line.startswith("weir_requests_total{")
    }
    assert sum(requests.values()) == 40
    assert next(n for name, n in requests.items() if 'tenant="_other"' in name) == 30
