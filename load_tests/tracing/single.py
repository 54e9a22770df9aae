"""What one trace costs, step by step, in this process."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from prometheus_client import CollectorRegistry

from deployments import wire
from deployments.gateway.dialects import DIALECTS
from deployments.gateway.ending import ClassLimits, judge
from deployments.gateway.legs import Attempt, Choice, Leg
from deployments.gateway.plan import Step
from deployments.gateway.pricing import PriceLists
from deployments.gateway.record import Record
from deployments.gateway.tracing.otlp import OtlpEncoder
from deployments.gateway.tracing.spans import KeptTrace
from deployments.gateway.tracing.tracer import Tracer
from load_tests.report import Row, percentile
from router.router import Router
from router.shipped import shipped_profile
from router.types import ReplicaInfo, RouteRequest
from weir.metrics import GatewayMetrics
from weir.settings import ModelSettings
from weir.settings.tracing import TracingSettings

_REPLICAS = 8
_PRICES = PriceLists([ModelSettings(name="m", source="x")])


def single_rows(count: int) -> list[Row]:
    """Microseconds of the gateway's thread for one plain request: one that is not kept; one that
    is, on the event loop; and what the sending thread does with it."""
    unkept, kept, router = _tracer(0.0), _tracer(1.0), _router()
    begin = [_time(lambda: unkept.begin(_no_header)) for _ in range(count)]
    forgotten = [_time(_ended(unkept, router, n)) for n in range(count)]
    told = [_time(_ended(kept, router, n)) for n in range(count)]
    encoder = OtlpEncoder({"service.name": "bench"})
    traces: list[KeptTrace] = kept.recent.newest(count)
    encoded = [_time(lambda trace=trace: encoder.encode([trace])) for trace in traces]  # type: ignore[misc]
    steps = {
        "begin a trace": begin,
        "end one that is not kept": forgotten,
        "end one that is kept": told,
        f"encode its {len(traces[0].spans)} spans (in the thread)": encoded,
    }
    return [
        {
            "table": "what one trace costs",
            "system": "weir",
            "step": step,
            "p50_us": percentile(times, 50),
            "p99_us": percentile(times, 99),
        }
        for step, times in steps.items()
    ]


def _time(work: Callable[[], Any]) -> float:
    begin_s = time.perf_counter()
    work()
    return (time.perf_counter() - begin_s) * 1e6


def _no_header(name: bytes) -> None:
    return None


def _tracer(ratio: float) -> Tracer:
    settings = TracingSettings(recent=10_000, sample_ratio=ratio)
    metrics = GatewayMetrics(CollectorRegistry())
    clocks = (time.monotonic, time.time)
    return Tracer(settings, metrics, lambda *_: "", *clocks, random.Random(1))


def _ended(tracer: Tracer, router: Router, number: int) -> Callable[[], None]:
    record = _record(tracer, router, number)
    ending = judge(record, 200, record.arrival_s + 0.3, ClassLimits(), _PRICES)

    def end() -> None:
        tracer.decide(record, ending)
        tracer.end(record, ending)

    return end


def _record(tracer: Tracer, router: Router, number: int) -> Record:
    """A plain chat request that one of eight replicas has answered."""
    dialect = DIALECTS.find("/v1/chat/completions")
    request: Any = SimpleNamespace(
        dialect=dialect, priority_class="standard", body_bytes=600, batch=None, enrichment=None
    )
    route = RouteRequest("r", "m", "t", 200, 32, block_hashes=tuple(range(12)))
    reservation = router.choose(route)
    reservation.release()
    submit = wire.Submit(1, "r", [1] * 200, wire.Sampling(max_tokens=32, temperature=0.7))
    done = wire.Done(1, "", [], "length", 200, 64, 32)
    stream: Any = SimpleNamespace(used=wire.Used(1, 200, 64, 32, 0.004, 0.2))
    leg = Leg("replica-1", [1] * 32, wire.Started(1, 200, 64), done, stream=stream)
    leg.reservation, leg.begun_s, leg.first_s, leg.ended_s = reservation, 0.02, 0.05, 0.3
    choice = Choice(0, 0, route, submit, [leg], admitted_s=0.02)
    attempt = Attempt(Step("m"), [choice], shown=True, first_output_s=0.05)
    attempt.begun_s, attempt.tokenized_s, attempt.ended_s = 0.001, 0.002, 0.3
    record = Record("chat", 0.0, f"request-{number}", "", "acme", "m", request, attempts=[attempt])
    record.validated_s = record.enriched_s = 0.001
    record.trace = tracer.begin(_no_header)
    return record


def _router() -> Router:
    router = shipped_profile().dispatcher(time.monotonic, time.time, random.Random(1)).router
    router.explains = True
    router.set_replicas(ReplicaInfo(f"replica-{n}", kv_blocks_total=4096) for n in range(_REPLICAS))
    return router
