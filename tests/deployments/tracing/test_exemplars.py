"""From a metric to a trace: exemplars, where a client asks for OpenMetrics."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.parser import text_string_to_metric_families as older_families

from deployments.gateway.metrics_page import merge_engines
from deployments.gateway.openmetrics import OPENMETRICS
from deployments.testing.world import TOKEN
from weir.metrics import GatewayMetrics

Make = Callable[..., Any]
#: What Prometheus 2.42 sends.
ACCEPT = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
HELLO: dict[str, Any] = {"messages": [{"role": "user", "content": "hello world"}]}


async def _page(world: Any, **headers: str) -> tuple[str, str]:
    told = {"authorization": f"Bearer {TOKEN}", **headers}
    async with world.session.get(world.url + "/metrics", headers=told) as answer:
        assert answer.status == 200
        return answer.headers["content-type"], await answer.text()


async def _ask(world: Any, replica: Any, id: str, **headers: str) -> str:
    pending = asyncio.ensure_future(world.post({**HELLO, "id": id}, **headers))
    async with asyncio.timeout(5):
        while id not in replica.generator.started:  # noqa: ASYNC110 - another task's
            await asyncio.sleep(0.002)
    replica.generator.say(id, "a")
    await asyncio.sleep(0.01)
    replica.generator.end(id, "b", count=3)
    response = await pending
    await response.read()
    return str(response.headers["traceresponse"][3:35])


async def test_histograms_name_a_kept_trace(traced: Make) -> None:
    world = await traced(sample_ratio=0.0)
    replica = await world.add_replica("a")
    await _ask(world, replica, "unkept")
    sampled = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    kept = await _ask(world, replica, "kept", traceparent=sampled)
    kind, text = await _page(world, accept=ACCEPT)
    assert kind.startswith("application/openmetrics-text")
    families = {family.name: family for family in text_string_to_metric_families(text)}
    for name in (
        "weir_time_to_first_token_seconds",
        "weir_request_duration_seconds",
        "weir_time_per_output_token_seconds",
        "weir_requests",
    ):
        exemplars = [sample.exemplar for sample in families[name].samples if sample.exemplar]
        assert {each.labels["trace_id"] for each in exemplars} == {kept}, name


async def test_who_asks_for_nothing_gets_the_older_format(traced: Make) -> None:
    world = await traced()
    replica = await world.add_replica("a")
    await _ask(world, replica, "r")
    kind, text = await _page(world)
    assert kind.startswith("text/plain")
    assert "# EOF" not in text
    assert "trace_id" not in text
    assert list(older_families(text))


def test_the_engines_metrics_are_the_same_in_both() -> None:
    """Counters with and without their usual ending, a gauge, a histogram, quotes in help texts."""
    engine = CollectorRegistry()
    Counter("vllm:prompt_tokens_total", 'Prefill "tokens".', ["engine"], registry=engine).labels(
        "0"
    ).inc(7)
    Gauge("vllm:num_requests_running", "Running.", registry=engine).set(2)
    Histogram("vllm:ttft_seconds", "First.", buckets=(0.1, 1), registry=engine).observe(0.5)
    merged = merge_engines({r: generate_latest(engine).decode() for r in ("a", "b")})
    own = GatewayMetrics(CollectorRegistry())
    own.retries.labels("m").inc()
    page = OPENMETRICS.write(own.registry) + OPENMETRICS.read(merged) + OPENMETRICS.end
    assert page.endswith("# EOF\n")

    def samples(families: Any) -> set[Any]:
        return {
            (sample.name, tuple(sorted(sample.labels.items())), sample.value)
            for family in families
            for sample in family.samples
            if sample.name.startswith("vllm:") and not sample.name.endswith("_created")
        }

    families = list(text_string_to_metric_families(page))
    assert samples(families) == samples(older_families(merged))
    kinds = {family.name: family.type for family in families}
    assert kinds["vllm:prompt_tokens"] == "counter"
    assert kinds["vllm:ttft_seconds"] == "histogram"
    assert kinds["weir_dispatch_retries"] == "counter"
