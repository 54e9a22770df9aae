"""Traces on their way to a collector that is well, slow, away, or hangs."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span as OtlpSpan
from opentelemetry.proto.trace.v1.trace_pb2 import Status
from prometheus_client import CollectorRegistry

from deployments.gateway.tracing.building import build_shipper
from deployments.gateway.tracing.shipping import Shipper
from deployments.gateway.tracing.spans import KeptTrace, Span
from deployments.testing.collector import Collector, collecting
from weir.metrics import GatewayMetrics
from weir.settings.tracing import TracingSettings

HELLO: dict[str, Any] = {"messages": [{"role": "user", "content": "hello world"}]}


@pytest.fixture
def metrics() -> GatewayMetrics:
    return GatewayMetrics(CollectorRegistry())


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as made:
        yield made


def _until(condition: Callable[[], Any], within_s: float = 10.0) -> None:
    give_up_s = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < give_up_s
        time.sleep(0.005)


def _trace(number: int = 0, spans: int = 3) -> KeptTrace:
    ids = [f"{number + 1:08x}{i + 1:08x}" for i in range(spans)]
    told = {"text": "a", "count": 3, "share": 0.5, "yes": True, "names": ["x", "y"], "few": [1.5]}
    root = Span("POST /x", ids[0], "", 1.0, 2.5, "server", told, "overloaded")
    rest = [Span("step", each, ids[0], 1.0, 2.0, "internal", {}) for each in ids[1:]]
    trace_id = f"{number + 1:032x}"
    return KeptTrace(trace_id, "v=1", f"r{number}", "t", "failed", 1000.0, (root, *rest))


def _lost(metrics: GatewayMetrics, reason: str) -> float:
    value = metrics.registry.get_sample_value
    return value("weir_trace_spans_dropped_total", {"reason": reason}) or 0.0


def _sent(metrics: GatewayMetrics) -> float:
    return metrics.registry.get_sample_value("weir_trace_spans_sent_total") or 0.0


def _shipper(metrics: GatewayMetrics, url: str, **more: Any) -> Shipper:
    told = {"endpoint": url, "protocol": "http/protobuf", "export_timeout_s": 0.3, **more}
    shipper = build_shipper(TracingSettings(**told), metrics, period_s=0.02)
    assert shipper is not None
    return shipper


def test_a_trace_arrives_whole(metrics: GatewayMetrics, collector: Collector) -> None:
    shipper = _shipper(metrics, collector.url, service_name="mine")
    shipper.put(_trace(1))
    _until(lambda: len(collector.spans) == 3)
    shipper.close()
    root = collector.spans[0]
    assert root.trace_id.hex() == f"{2:032x}"
    assert (root.name, root.kind) == ("POST /x", OtlpSpan.SPAN_KIND_SERVER)
    assert root.parent_span_id == b""
    assert collector.spans[1].parent_span_id == root.span_id
    assert root.start_time_unix_nano == 1_001_000_000_000
    assert root.end_time_unix_nano == 1_002_500_000_000
    assert root.status.code == Status.STATUS_CODE_ERROR
    assert root.trace_state == "v=1"
    told = {each.key: each.value for each in root.attributes}
    assert told["error.type"].string_value == "overloaded"
    assert (told["count"].int_value, told["share"].double_value) == (3, 0.5)
    assert told["yes"].bool_value is True
    assert [v.string_value for v in told["names"].array_value.values] == ["x", "y"]
    assert collector.resources[0]["service.name"] == "mine"
    assert (_sent(metrics), _lost(metrics, "unsent")) == (3, 0)


def test_what_waits_is_sent_at_the_end(metrics: GatewayMetrics, collector: Collector) -> None:
    shipper = _shipper(metrics, collector.url)
    for number in range(400):
        shipper.put(_trace(number))
    shipper.close(timeout_s=10.0)
    assert len(collector.spans) == 1200 == _sent(metrics)


def test_a_collector_that_is_away_costs_its_spans(metrics: GatewayMetrics) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/v1/traces"
        shipper = _shipper(metrics, url)
        shipper.put(_trace())
        _until(lambda: _lost(metrics, "unsent") == 3)
        shipper.close()
    assert _sent(metrics) == 0


def test_a_collector_that_refuses(metrics: GatewayMetrics, collector: Collector) -> None:
    collector.status = 400
    shipper = _shipper(metrics, collector.url)
    shipper.put(_trace())
    _until(lambda: _lost(metrics, "unsent") == 3)
    collector.status = 200
    shipper.put(_trace(1))
    _until(lambda: len(collector.spans) == 3)
    shipper.close()


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_collector_that_hangs(metrics: GatewayMetrics, collector: Collector) -> None:
    """The queue is bounded in spans, putting never waits, and closing not for long."""
    collector.wait_s = 60.0
    shipper = _shipper(metrics, collector.url, queue_spans=1000, export_timeout_s=30.0)
    shipper.put(_trace())
    _until(lambda: collector.asked == 1)
    began_s = time.monotonic()
    for number in range(1, 1001):
        shipper.put(_trace(number))
    assert time.monotonic() - began_s < 2.0
    assert _lost(metrics, "full") == (1000 - 333) * 3
    shipper.close(timeout_s=0.1)
    assert time.monotonic() - began_s < 10.0


def test_a_slow_collector_gets_everything(metrics: GatewayMetrics, collector: Collector) -> None:
    collector.wait_s = 0.05
    shipper = _shipper(metrics, collector.url)
    for number in range(600):
        shipper.put(_trace(number))
    _until(lambda: len(collector.spans) == 1800)
    shipper.close()
    assert _lost(metrics, "full") == 0


def test_over_grpc(metrics: GatewayMetrics) -> None:
    taken: list[ExportTraceServiceRequest] = []

    class Service(trace_service_pb2_grpc.TraceServiceServicer):
        def Export(self, request: Any, context: Any) -> Any:
            taken.append(request)
            return ExportTraceServiceResponse()

    server = grpc.server(futures.ThreadPoolExecutor(1))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(Service(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        url = f"http://127.0.0.1:{port}"
        shipper = _shipper(metrics, url, protocol="grpc", export_timeout_s=5.0)
        shipper.put(_trace())
        _until(lambda: _sent(metrics) == 3)
        shipper.close()
    finally:
        server.stop(None).wait(5.0)
    assert taken[0].resource_spans[0].scope_spans[0].spans[0].name == "POST /x"


async def test_requests_go_on_while_the_collector_hangs(
    traced: Callable[..., Any], metrics: GatewayMetrics, collector: Collector
) -> None:
    """And are traced again when it is back."""
    collector.wait_s = 60.0
    shipper = _shipper(metrics, collector.url, export_timeout_s=30.0)
    world = await traced(shipping=shipper)
    replica = await world.add_replica("a")

    async def ask(id: str) -> None:
        pending = asyncio.ensure_future(world.post({**HELLO, "id": id}))
        async with asyncio.timeout(5):
            while id not in replica.generator.started:  # noqa: ASYNC110 - another task's
                await asyncio.sleep(0.002)
            replica.generator.end(id, "b", count=1)
            assert (await pending).status == 200

    for number in range(20):
        await ask(f"r{number}")
    assert not collector.spans
    collector.wait_s = 0.0
    collector.released.set()
    async with asyncio.timeout(10):
        while sum(s.name.startswith("POST") for s in collector.spans) < 20:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    await asyncio.to_thread(shipper.close)
