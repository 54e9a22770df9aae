"""What a request comes to: headers, bill, metrics and SLO verdict, as a fold over its attempts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from deployments.gateway.bodies.unknown import Unknown
from deployments.gateway.fallbacks import Fallback
from deployments.gateway.legs import Attempt, billed
from deployments.gateway.model import Model
from deployments.gateway.outputs import Counts
from deployments.gateway.request import Request
from weir.errors import WeirError
from weir.metrics import GatewayMetrics
from weir.settings import PriceSettings

SPILL_HEADER = b"x-weir-spill"
CASCADE_HEADER = b"x-weir-cascade"
_Pairs = list[tuple[bytes, bytes]]


@dataclass(slots=True)
class Record:
    """Filled step by step; everything told at the end follows from it. ``tenant`` and ``model``
    stay empty for a request that came to its end before they were known. ``id`` and ``serial`` are
    the request's; ``key`` is the key's that it came with. ``booked``: it is in the ledger. Times
    are on the loop's clock."""

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

    @property
    def error_code(self) -> str:
        """For metrics: empty for an answer without error."""
        if self.client_left:
            return "client_gone"
        return (self.error.code or self.error.type) if self.error else ""

    def early_headers(self) -> _Pairs:
        """The headers of a stream that is opened before it is known who answers."""
        pairs: _Pairs = []
        if self.request is not None and self.request.enrichment is not None:
            pairs += self.request.enrichment.headers()
        if self.unknown is not None:
            pairs += self.unknown.headers()
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
    """``slo_s``: time-to-first-token limit per priority class."""

    def __init__(
        self,
        models: Mapping[str, Model],
        fallbacks: Mapping[str, Fallback],
        metrics: GatewayMetrics,
        slo_s: Mapping[str, float],
    ) -> None:
        self._models = models
        self._fallbacks = fallbacks
        self._metrics = metrics
        self._slo_s = slo_s

    def settle(self, record: Record, status: int, now_s: float) -> None:
        """Bill and count a request that has ended. ``status``: as the client saw it (0: it had
        left before)."""
        self._bill(record)
        self._count_spills(record)
        labels = (record.tenant, record.model)
        metrics = self._metrics
        told = (record.endpoint, str(status or 499), record.error_code)
        metrics.of(metrics.requests, *labels, *told).inc()
        if record.client_left:
            metrics.cancelled.labels(*labels).inc()
        shown = [a for a in record.attempts if a.shown and a.choices]
        if shown:
            self._observe(record, shown[-1], now_s)

    def _bill(self, record: Record) -> None:
        total_usd = 0.0
        for attempt, counts in billed(record.attempts, record.client_left):
            model, adapter = attempt.step.model, attempt.adapter
            labels, metrics = (record.tenant, model), self._metrics
            metrics.of(metrics.prompt_tokens, *labels).inc(counts.prompt_tokens)
            metrics.of(metrics.cached_tokens, *labels).inc(counts.cached_tokens)
            metrics.of(metrics.output_tokens, *labels).inc(counts.output_tokens)
            own = adapter.price if adapter is not None else None
            usd = cost_usd(own or self._models[model].settings.price, counts)
            metrics.of(metrics.cost, *labels).inc(usd)
            total_usd += usd
        fallback = self._fallbacks.get(record.model)
        if fallback is not None:
            fallback.policy.cost.budgets.spend(record.tenant, total_usd)

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
        labels = (record.tenant, record.model)
        metrics = self._metrics
        first_s = attempt.first_output_s
        if record.request is not None and record.request.priority_class in self._slo_s:
            limit_s = self._slo_s[record.request.priority_class]
            in_time = first_s is not None and first_s - record.arrival_s <= limit_s
            met = "met" if in_time and not record.error_code else "missed"
            metrics.of(metrics.slo, *labels, record.request.priority_class, met).inc()
        if record.error_code or first_s is None:
            return
        counts = attempt.counts
        metrics.of(metrics.ttft, *labels).observe(first_s - record.arrival_s)
        metrics.of(metrics.duration, *labels).observe(now_s - record.arrival_s)
        metrics.of(metrics.prompt_size, *labels).observe(counts.prompt_tokens)
        longest = max(choice.counts.output_tokens for choice in attempt.choices)
        if longest > 1:
            metrics.of(metrics.tpot, *labels).observe((now_s - first_s) / (longest - 1))


def cost_usd(price: PriceSettings, counts: Counts) -> float:
    """The bill in USD; cached prompt tokens may have a price of their own."""
    cached_price = price.cached_input_usd_per_million_tokens
    if cached_price is None:
        cached_price = price.input_usd_per_million_tokens
    return (
        (counts.prompt_tokens - counts.cached_tokens) * price.input_usd_per_million_tokens
        + counts.cached_tokens * cached_price
        + counts.output_tokens * price.output_usd_per_million_tokens
    ) / 1e6
