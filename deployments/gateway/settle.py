"""What a request comes to: headers, bill, metrics and SLO verdict, as a fold over its attempts."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from deployments.gateway.accounts import Tab
from deployments.gateway.bodies.unknown import Unknown
from deployments.gateway.demand import Answered
from deployments.gateway.legs import Attempt, billed
from deployments.gateway.pricing import PriceLists, used_of
from deployments.gateway.request import Request
from deployments.gateway.tracing.context import RESPONSE_HEADER, Trace
from fallback.policies.kinds import FAILURE, OVERLOAD
from weir.cost import usd_of
from weir.errors import WeirError
from weir.metrics import GatewayMetrics

SPILL_HEADER = b"x-weir-spill"
CASCADE_HEADER = b"x-weir-cascade"
_Pairs = list[tuple[bytes, bytes]]
#: Why a student answers although its tenant and its request did not ask for that.
_DEGRADED = frozenset({FAILURE, OVERLOAD})


@dataclass(slots=True)
class Record:
    """Filled step by step; everything told at the end follows from it. ``tenant`` and ``model``
    stay empty for a request that came to its end before they were known. ``id`` and ``serial`` are
    the request's; ``key`` is the key's that it came with. ``booked``: it is in the ledger. ``tab``:
    its account, where its tenant has quotas or a budget. ``nano_usd``: what it was billed, once it
    is settled. ``trace``: where requests are traced. Times are on the loop's clock; ``validated_s``
    and ``enriched_s`` are 0 until then."""

    endpoint: str
    arrival_s: float
    id: str = ""
    serial: str = ""
    tenant: str = ""
    model: str = ""
    request: Request | None = None
    unknown: Unknown | None = None
    attempts: list[Attempt] = field(default_factory=list)
    error: WeirError | None = None
    client_left: bool = False
    key: str = ""
    booked: bool = False
    tab: Tab | None = None
    trace: Trace | None = None
    validated_s: float = 0.0
    enriched_s: float = 0.0
    nano_usd: int = 0

    @property
    def error_code(self) -> str:
        """For metrics: empty for an answer without error."""
        if self.client_left:
            return "client_gone"
        return (self.error.code or self.error.type) if self.error else ""

    @property
    def exemplar(self) -> dict[str, str] | None:
        """What leads from a metric to the request's trace, if that is kept."""
        trace = self.trace
        return {"trace_id": trace.trace_id} if trace is not None and trace.kept else None

    def early_headers(self) -> _Pairs:
        """The headers of a stream that is opened before it is known who answers."""
        pairs: _Pairs = []
        if self.request is not None and self.request.enrichment is not None:
            pairs += self.request.enrichment.headers()
        if self.unknown is not None:
            pairs += self.unknown.headers()
        if self.tab is not None:
            family = self.request.dialect.family if self.request is not None else ""
            pairs += self.tab.headers(family)
        if self.trace is not None:
            pairs.append((RESPONSE_HEADER, self.trace.response.encode()))
        return pairs

    def headers(self) -> _Pairs:
        """The response's headers, as its attempts are when it begins."""
        pairs = self.early_headers()
        if self.attempts and self.error is None:
            pairs += _answered_by(self.attempts)
        return pairs


def _answered_by(attempts: list[Attempt]) -> _Pairs:
    last = attempts[-1]
    answered = last.adapter.id if last.adapter is not None else last.step.model
    pairs: _Pairs = [(b"x-weir-model-answered", answered.encode())]
    if last.choices and last.choices[0].legs:
        leg = last.choices[0].legs[-1]
        pairs.append((b"x-weir-replica", leg.replica_id.encode()))
        if leg.kept is not None:
            pairs.append((b"x-weir-prefill-replica", leg.prefill_id.encode()))
    doubtful = next((a for a in attempts if a.doubtful), None)
    if doubtful is not None:
        counts = doubtful.counts
        told = (
            f"{doubtful.doubt}; also billed: {doubtful.step.model} "
            f"prompt_tokens={counts.prompt_tokens} output_tokens={counts.output_tokens}"
        )
        pairs += [(SPILL_HEADER, b"cascade-escalated"), (CASCADE_HEADER, told.encode())]
    if last.step.spill is not None:
        pairs = [pair for pair in pairs if pair[0] != SPILL_HEADER]
        pairs.append((SPILL_HEADER, last.step.spill.encode()))
    elif last.step.hold_back is not None:
        pairs += [(SPILL_HEADER, b"cascade-kept"), (CASCADE_HEADER, last.doubt.encode())]
    return pairs


class Settlement:
    """``slo_s``: time-to-first-token limit per priority class; ``tpot_slo_s``: limit of the mean
    time per later token. ``with_student``: models for which a student can answer. ``answered`` is
    told how fast."""

    def __init__(
        self,
        prices: PriceLists,
        metrics: GatewayMetrics,
        slo_s: Mapping[str, float],
        tpot_slo_s: Mapping[str, float] = MappingProxyType({}),
        with_student: Collection[str] = (),
        answered: Answered | None = None,
    ) -> None:
        self._answered = answered or Answered()
        self._prices = prices
        self._metrics = metrics
        self._slo_s = slo_s
        self._tpot_slo_s = tpot_slo_s
        self._with_student = frozenset(with_student)

    def settle(self, record: Record, status: int, now_s: float) -> None:
        """Bill and count a request that has ended. ``status``: as the client saw it (0: it had
        left before)."""
        self._bill(record)
        self._count_spills(record)
        labels = (record.tenant, record.model)
        metrics = self._metrics
        told = (record.endpoint, str(status or 499), record.error_code)
        metrics.of(metrics.requests, *labels, *told).inc(1, record.exemplar)
        self._judge_answer(record, status)
        if record.client_left:
            metrics.cancelled.labels(*labels).inc()
        shown = [a for a in record.attempts if a.shown and a.choices]
        if shown:
            self._observe(record, shown[-1], now_s)

    def _judge_answer(self, record: Record, status: int) -> None:
        """Availability: what the platform failed is missed, what the client did wrong is no request
        of this objective. Quality: a student answered where the model itself could not."""
        request = record.request
        failed = record.error.status >= 500 if record.error is not None else status >= 500
        if not failed and (record.client_left or record.error is not None or request is None):
            return
        priority = request.priority_class if request is not None else ""
        self._count_verdict(record, priority, "availability", not failed)
        if not failed and record.model in self._with_student:
            shown = [attempt for attempt in record.attempts if attempt.shown]
            degraded = bool(shown) and shown[-1].step.spill in _DEGRADED
            self._count_verdict(record, priority, "quality", not degraded)

    def _count_verdict(self, record: Record, priority: str, slo: str, met: bool) -> None:
        metrics = self._metrics
        of_slo = (record.tenant, record.model, priority, slo)
        # Both are there from the first request on: a rate misses what a new series begins with.
        kept = metrics.of(metrics.slo, *of_slo, "met")
        missed = metrics.of(metrics.slo, *of_slo, "missed")
        (kept if met else missed).inc()

    def _bill(self, record: Record) -> None:
        request, metrics = record.request, self._metrics
        paid = []
        for attempt, counts in billed(record.attempts, record.client_left):
            assert request is not None
            labels = (record.tenant, attempt.step.model)
            metrics.of(metrics.prompt_tokens, *labels).inc(counts.prompt_tokens)
            metrics.of(metrics.cached_tokens, *labels).inc(counts.cached_tokens)
            metrics.of(metrics.output_tokens, *labels).inc(counts.output_tokens)
            used = used_of(attempt, counts)
            nano_usd = self._prices.nano_usd(request, attempt, used)
            metrics.of(metrics.cost, *labels).inc(float(usd_of(nano_usd)))
            record.nano_usd += nano_usd
            if attempt.charge is not None:
                paid.append((attempt.charge, used, nano_usd))
        if record.tab is not None:
            # A request that failed and costs nothing is the platform's loss as a whole.
            lost = record.error is not None and record.error.status >= 500 and not paid
            record.tab.close(paid, counts=not lost)

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

    def _observe(self, record: Record, attempt: Attempt, now_s: float) -> None:
        """Times of an answer. One that ended with an error has none, and has missed its SLO."""
        metrics = self._metrics
        first_s = attempt.first_output_s
        priority = record.request.priority_class if record.request is not None else ""
        failed = bool(record.error_code)
        if (limit_s := self._slo_s.get(priority)) is not None:
            in_time = first_s is not None and first_s - record.arrival_s <= limit_s
            self._count_verdict(record, priority, "ttft", in_time and not failed)
            self._answered.judged(record.model, priority, in_time and not failed)
        if failed or first_s is None:
            return
        kind, counts = (record.model, priority), attempt.counts
        ttft_s, example = first_s - record.arrival_s, record.exemplar
        metrics.of(metrics.ttft, *kind).observe(ttft_s, example)
        metrics.of(metrics.tenant_ttft, record.tenant, record.model).observe(ttft_s)
        metrics.of(metrics.duration, *kind).observe(now_s - record.arrival_s, example)
        metrics.of(metrics.prompt_size, *kind).observe(counts.prompt_tokens)
        tpot_s = attempt.tpot_s(now_s)
        self._answered.timed(record.model, priority, ttft_s, tpot_s)
        if tpot_s is not None:
            metrics.of(metrics.tpot, *kind).observe(tpot_s, example)
            if (limit_s := self._tpot_slo_s.get(priority)) is not None:
                self._count_verdict(record, priority, "tpot", tpot_s <= limit_s)
