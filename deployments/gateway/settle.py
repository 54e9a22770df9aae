"""Bills a request that has ended, and counts it in the metrics."""

from __future__ import annotations

from collections.abc import Collection

from deployments.gateway.ending import Cause, Ending
from deployments.gateway.record import Record
from fallback.policies.kinds import FAILURE, OVERLOAD
from weir.cost import usd_of
from weir.metrics import GatewayMetrics

#: Why a student answers although its tenant and its request did not ask for that.
_DEGRADED = frozenset({FAILURE, OVERLOAD})


class Settlement:
    """``with_student``: models for which a student can answer."""

    def __init__(self, metrics: GatewayMetrics, with_student: Collection[str] = ()) -> None:
        self._metrics = metrics
        self._with_student = frozenset(with_student)

    def settle(self, record: Record, ending: Ending) -> None:
        """Once for each request."""
        metrics, labels = self._metrics, (record.tenant, record.model)
        self._bill(record, ending)
        self._count_spills(record)
        told = (record.endpoint, str(ending.status or 499), ending.code)
        metrics.of(metrics.requests, *labels, *told).inc(1, record.exemplar)
        if ending.cause is Cause.LEFT:
            metrics.cancelled.labels(*labels).inc()
        self._count_objectives(record, ending)
        if ending.ttft_s is not None:
            self._observe(record, ending, ending.ttft_s)

    def _bill(self, record: Record, ending: Ending) -> None:
        metrics = self._metrics
        for paid in ending.paid:
            counts, labels = paid.counts, (record.tenant, paid.attempt.step.model)
            metrics.of(metrics.prompt_tokens, *labels).inc(counts.prompt_tokens)
            metrics.of(metrics.cached_tokens, *labels).inc(counts.cached_tokens)
            metrics.of(metrics.output_tokens, *labels).inc(counts.output_tokens)
            metrics.of(metrics.cost, *labels).inc(float(usd_of(paid.nano_usd)))
        if record.tab is not None:
            charges = [
                (charge, paid.used, paid.nano_usd)
                for paid in ending.paid
                if (charge := paid.attempt.charge) is not None
            ]
            # A request that failed and costs nothing is the platform's loss as a whole.
            lost = ending.cause is Cause.FAILED and not charges
            record.tab.close(charges, counts=not lost)

    def _count_spills(self, record: Record) -> None:
        for attempt in record.attempts:
            kind = attempt.step.spill
            if kind is not None and attempt.shown:
                self._metrics.spills.labels(record.tenant, record.model, kind).inc()
            elif kind is not None and not record.client_left:
                self._metrics.spill_failures.labels(record.model, kind).inc()
            if attempt.step.hold_back is not None and (attempt.shown or attempt.doubtful):
                told = "escalated" if attempt.doubtful else "kept"
                self._metrics.cascades.labels(record.model, told).inc()

    def _count_objectives(self, record: Record, ending: Ending) -> None:
        """Availability: what the platform failed is missed; what was refused, or given up, is no
        request of this objective. Quality: a student answered where the model itself could not."""
        answered = ending.cause is Cause.ANSWERED
        if answered or ending.cause is Cause.FAILED:
            self._count(record, ending, "availability", answered)
        if answered and record.model in self._with_student:
            attempt = ending.answered
            degraded = attempt is not None and attempt.step.spill in _DEGRADED
            self._count(record, ending, "quality", not degraded)
        if ending.ttft_met is not None:
            self._count(record, ending, "ttft", ending.ttft_met)
        if ending.tpot_met is not None:
            self._count(record, ending, "tpot", ending.tpot_met)

    def _count(self, record: Record, ending: Ending, slo: str, met: bool) -> None:
        metrics = self._metrics
        of_slo = (record.tenant, record.model, ending.priority_class, slo)
        # Both are there from the first request on: a rate misses what a new series begins with.
        kept = metrics.of(metrics.slo, *of_slo, "met")
        missed = metrics.of(metrics.slo, *of_slo, "missed")
        (kept if met else missed).inc()

    def _observe(self, record: Record, ending: Ending, ttft_s: float) -> None:
        """Times of a complete answer."""
        metrics, kind = self._metrics, (record.model, ending.priority_class)
        example = record.exemplar
        metrics.of(metrics.ttft, *kind).observe(ttft_s, example)
        metrics.of(metrics.tenant_ttft, record.tenant, record.model).observe(ttft_s)
        metrics.of(metrics.duration, *kind).observe(ending.at_s - record.arrival_s, example)
        metrics.of(metrics.prompt_size, *kind).observe(ending.counts.prompt_tokens)
        if ending.tpot_s is not None:
            metrics.of(metrics.tpot, *kind).observe(ending.tpot_s, example)
