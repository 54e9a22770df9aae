"""Begins and ends the traces of a gateway's requests."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Protocol

from deployments.gateway.ending import Ending
from deployments.gateway.record import Record
from deployments.gateway.tracing.context import Contexts, Trace
from deployments.gateway.tracing.folding import PoolOf, fold
from deployments.gateway.tracing.keeping import Keeping
from deployments.gateway.tracing.recent import RecentTraces
from deployments.gateway.tracing.spans import KeptTrace
from weir.metrics import GatewayMetrics
from weir.settings.tracing import TracingSettings


class Shipping(Protocol):
    """Takes kept traces to a collector."""

    def put(self, trace: KeptTrace) -> None:
        """At once, and without raising: what there is no room for is dropped and counted."""
        ...


class Tracer:
    """``clock`` is the loop's, ``wall_clock`` gives seconds since the epoch. ``shipping``: None
    where nothing leaves the gateway. ``recent``: what ``weir trace`` shows."""

    def __init__(
        self,
        settings: TracingSettings,
        metrics: GatewayMetrics,
        pool_of: PoolOf,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
        rng: random.Random,
        shipping: Shipping | None = None,
    ) -> None:
        self._contexts = Contexts(settings.sample_ratio, settings.parent, rng)
        self._keeping = Keeping(frozenset(settings.always), settings.slow_s)
        self._metrics = metrics
        self._pool_of = pool_of
        self._clock = clock
        self._wall_clock = wall_clock
        self._shipping = shipping
        self.content_max_chars = settings.content_max_chars
        self.recent = RecentTraces(settings.recent)

    def begin(self, header: Callable[[bytes], str | None]) -> Trace:
        """The trace of a request with these headers."""
        return self._contexts.begin(header)

    def decide(self, record: Record, ending: Ending) -> None:
        """The request is over: whether its trace is kept, to which metrics then lead."""
        if record.trace is not None:
            record.trace.kept = self._keeping.why(record, ending)

    def end(self, record: Record, ending: Ending) -> None:
        """Make the spans of a trace that is kept."""
        trace = record.trace
        if trace is None or not trace.kept:
            return
        self._metrics.of(self._metrics.traces_kept, trace.kept).inc()
        now_s = self._clock()
        kept = KeptTrace(
            trace.trace_id,
            trace.state,
            record.id,
            record.tenant,
            trace.kept,
            self._wall_clock() - now_s,
            tuple(fold(record, ending, now_s, self._pool_of)),
        )
        self.recent.add(kept)
        if self._shipping is not None:
            self._shipping.put(kept)
