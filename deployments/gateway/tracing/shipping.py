"""Kept traces on their way to a collector: a bounded queue, and a thread that empties it.

OpenTelemetry's own processor and encoder would do, at 22 µs a span for the objects and the
encoding, and would drop without saying how much. Here a span is encoded once, straight into
OTLP's message (5 µs), by the thread; what is dropped is counted. A collector that is away, slow or
hangs keeps the thread waiting, and nothing else.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from deployments.gateway.tracing.spans import KeptTrace
from weir.logs import stack_of
from weir.metrics import GatewayMetrics

if TYPE_CHECKING:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

_LOG = logging.getLogger("weir.gateway")
_BATCH_SPANS = 512
_MOST_PAUSE_S = 30.0


class Exporter(Protocol):
    """Takes encoded spans to a collector."""

    def export(self, request: ExportTraceServiceRequest) -> bool:
        """Whether the collector has them; waits for it, within bounds. Never raises."""
        ...

    def shutdown(self) -> None:
        """End an export that waits, and let go of the connection."""
        ...


class Encoder(Protocol):
    """Makes OTLP's message of traces."""

    def encode(self, traces: list[KeptTrace]) -> ExportTraceServiceRequest: ...


class Shipper:
    """``open``: makes encoder and exporter, in the thread, because their libraries take long to
    import. ``most_spans``: that wait."""

    def __init__(
        self,
        open: Callable[[], tuple[Encoder, Exporter]],
        metrics: GatewayMetrics,
        most_spans: int,
        period_s: float,
    ) -> None:
        self._open = open
        self._metrics = metrics
        self._most_spans = most_spans
        self._period_s = period_s
        self._waiting: deque[KeptTrace] = deque()
        self._waiting_spans = 0
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._exporter: Exporter | None = None
        self._thread = threading.Thread(target=self._run, name="weir-traces", daemon=True)

    def start(self) -> None:
        """Begin to empty the queue."""
        self._thread.start()

    def put(self, trace: KeptTrace) -> None:
        """See :class:`deployments.gateway.tracing.tracer.Shipping`."""
        count = len(trace.spans)
        with self._lock:
            full = self._waiting_spans + count > self._most_spans
            if not full:
                self._waiting.append(trace)
                self._waiting_spans += count
        if full:
            self._drop("full", count)
        elif self._waiting_spans >= _BATCH_SPANS:
            self._wake.set()

    def close(self, timeout_s: float = 2.0) -> None:
        """Send what waits, within ``timeout_s``; blocks for so long at most."""
        self._closing.set()
        self._wake.set()
        self._thread.join(timeout_s)
        if self._thread.is_alive() and self._exporter is not None:
            self._exporter.shutdown()

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                self._empty_forever()
            except Exception as error:  # noqa: BLE001 - the thread's edge: requests go on
                _LOG.error("traces could not be sent: %s", stack_of(error))
                self._closing.wait(_MOST_PAUSE_S)
        if self._exporter is not None:
            self._exporter.shutdown()

    def _empty_forever(self) -> None:
        """Until it is closed; what waits then is sent unless the collector does not take it."""
        encoder, self._exporter = self._open()
        failures = 0
        while True:
            self._wake.wait(self._period_s)
            self._wake.clear()
            while batch := self._take():
                sent = self._send(encoder, self._exporter, batch)
                failures = 0 if sent else failures + 1
                if not sent:
                    pause_s = min(_MOST_PAUSE_S, self._period_s * 2 ** min(failures, 8))
                    if self._closing.wait(pause_s):
                        return
            if self._closing.is_set():
                return

    def _take(self) -> list[KeptTrace]:
        taken: list[KeptTrace] = []
        spans = 0
        with self._lock:
            while self._waiting and spans < _BATCH_SPANS:
                trace = self._waiting.popleft()
                spans += len(trace.spans)
                taken.append(trace)
            self._waiting_spans -= spans
        return taken

    def _send(self, encoder: Encoder, exporter: Exporter, batch: list[KeptTrace]) -> bool:
        count, sent = sum(len(trace.spans) for trace in batch), False
        try:
            sent = exporter.export(encoder.encode(batch))
        finally:
            if sent:
                self._metrics.trace_spans_sent.inc(count)
            else:
                self._drop("unsent", count)
        return sent

    def _drop(self, reason: str, spans: int) -> None:
        self._metrics.trace_spans_dropped.labels(reason).inc(spans)
