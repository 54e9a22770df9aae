"""Every metric that weir exports, declared once: names with units, labels with bounded values.

``tenant`` and ``model`` come from settings and directory, never from what a client sends. Only
counters and single sums have a ``tenant``: a histogram costs a tenant twenty series.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Summary

_Metric = TypeVar("_Metric", Counter, Gauge, Histogram, Summary)

#: The ``tenant`` of those that have no series of their own.
OTHER_TENANTS = "_other"
MOST_TENANTS = 2000

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_TPOT_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.25, 0.5, 1)
_LOOKUP_SECONDS = (0.0001, 0.0002, 0.0003, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 1)
_AGE_SECONDS = (1, 10, 60, 300, 900, 3600, 14_400, 43_200, 86_400, 259_200, 604_800)
_TOKENS = (16, 64, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536, 131072)


@dataclass(frozen=True, slots=True)
class TierMetric:
    """A metric that a replica's engine exports: a counter if it ``counts``, or else a gauge."""

    documentation: str
    labels: tuple[str, ...] = ("tier",)
    counts: bool = True


#: Of KV blocks outside the device's memory. ``tier``: memory or disk.
TIER_METRICS: Mapping[str, TierMetric] = MappingProxyType(
    {
        "weir_kv_tier_blocks": TierMetric("KV blocks in the tier.", counts=False),
        "weir_kv_tier_bytes": TierMetric("What they take, in bytes.", counts=False),
        "weir_kv_tier_limit_bytes": TierMetric("The most that the tier takes.", counts=False),
        "weir_kv_tier_stored_blocks": TierMetric("KV blocks written into the tier."),
        "weir_kv_tier_loaded_blocks": TierMetric(
            "KV blocks read from the tier: from the disk into memory, from memory to the device."
        ),
        "weir_kv_tier_evicted_blocks": TierMetric("KV blocks that gave way to others."),
        "weir_kv_tier_failed_blocks": TierMetric(
            "KV blocks that could not be written (full, broken, paused, busy) or read (damaged, "
            "unreadable).",
            ("tier", "reason"),
        ),
    }
)


class ControlMetrics:
    """What the control process tells: money, from the ledger, and what autoscaling decided.

    Amounts are of the present calendar month (UTC), up to a minute old. They are gauges: a leg that
    is booked late moves a little from idle time to whoever asked for it.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        of_pool = ("model", "pool")
        self.paid = self._this_month("weir_month_paid_usd", "paid for replicas.", *of_pool)
        self.idle = self._this_month(
            "weir_month_idle_usd", "paid for replicas while they did nothing.", *of_pool
        )
        self.hours = self._this_month(
            "weir_month_replica_hours", "time that replicas were up, in hours.", *of_pool
        )
        self.borne = self._this_month(
            "weir_month_cost_usd", "paid for replicas while they worked for a class.", "priority"
        )
        self.billed = self._this_month("weir_month_billed_usd", "billed to tenants.", "priority")
        self.saved = self._this_month(
            "weir_month_saved_usd", "not paid, thanks to the cache, the student or spot.", "by"
        )

        self.target = self._decided(
            "weir_autoscaling_target_replicas", "Replicas that were decided.", "pool"
        )
        self.figure = self._decided(
            "weir_autoscaling_figure", "What the policy decided by, under its own names.", "figure"
        )
        self.arrivals = self._decided(
            "weir_autoscaling_arrivals_per_second", "Requests, as they arrive.", "priority"
        )
        self.usd_per_hour = self._decided(
            "weir_autoscaling_usd_per_hour", "What the decided replicas cost."
        )
        self.changes = Counter(
            "weir_autoscaling_changes_total",
            "Decisions that changed a number of replicas.",
            ("model",),
            registry=self.registry,
        )

    def _decided(self, name: str, documentation: str, *labels: str) -> Gauge:
        return Gauge(name, documentation, ("model", *labels), registry=self.registry)

    def _this_month(self, name: str, what: str, *labels: str) -> Gauge:
        return Gauge(name, f"This month: {what}", labels, registry=self.registry)


class TenantBound:
    """Which tenants have series of their own: the first ``most`` that were seen."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._known: set[str] = set()

    def label(self, tenant: str) -> str:
        """The tenant's label."""
        if tenant in self._known:
            return tenant
        if len(self._known) >= self.most:
            return OTHER_TENANTS
        self._known.add(tenant)
        return tenant

    @property
    def count(self) -> int:
        """Tenants with series of their own."""
        return len(self._known)


class _OfTenants:
    """A metric whose first label is the tenant's. prometheus_client makes its children of the same
    class, so ``bound`` is set from outside."""

    bound: TenantBound

    def labels(self, *values: Any) -> Any:
        """The child of the tenant, or of all those that are beyond the bound."""
        return super().labels(self.bound.label(values[0]), *values[1:])  # type: ignore[misc]


class _TenantCounter(_OfTenants, Counter):
    pass


class _TenantGauge(_OfTenants, Gauge):
    pass


class _TenantSummary(_OfTenants, Summary):
    pass


class GatewayMetrics:
    """What one gateway process counts.

    ``registry`` has what each gateway counts for itself: the sum over gateways is the platform's.
    ``shared`` has what all gateways see alike, such as the replicas: it is told once. At most
    ``most_tenants`` tenants have series of their own.
    """

    def __init__(
        self, registry: CollectorRegistry | None = None, most_tenants: int = MOST_TENANTS
    ) -> None:
        self.registry = registry or CollectorRegistry()
        self.shared = CollectorRegistry()
        self.tenants = TenantBound(most_tenants)
        self._children: dict[tuple[object, ...], object] = {}
        self._declare_process()
        self._declare_requests()
        self._declare_latency()
        self._declare_routing()
        self._declare_replicas()
        self._declare_autoscaling()
        self._declare_handoffs()
        self._declare_fallback()
        self._declare_features()
        self._declare_ledger()
        self._declare_batches()
        self._declare_directory()
        self._declare_accounts()
        self._declare_traces()
        for gauge in (
            self.feature_store_up,
            self.account_up,
            self.ledger_stream_up,
            self.directory_age,
        ):
            gauge.set(math.nan)  # there may be none, which is not the same as one that is away
        for metric in vars(self).values():
            if isinstance(metric, _OfTenants):
                metric.bound = self.tenants

    def of(self, metric: _Metric, *labels: str) -> _Metric:
        """``metric.labels(*labels)``, looked up once. The client library checks the labels and
        takes a lock each time: 2 µs, twelve times a request."""
        key = (metric, *labels)
        child = self._children.get(key)
        if child is None:
            child = self._children[key] = metric.labels(*labels)
        return child  # type: ignore[return-value]  # put there for this very metric

    def _declare_process(self) -> None:
        self.info = Gauge(
            "weir_gateway_info", "1, by weir's version.", ("version",), registry=self.registry
        )
        self.tenants_seen = Gauge(
            "weir_metrics_tenants",
            "Tenants with series of their own in this gateway.",
            registry=self.registry,
        )
        self.tenants_seen.set_function(lambda: self.tenants.count)
        self.tenants_most = Gauge(
            "weir_metrics_tenants_limit",
            "The most of them (server.metrics.max_tenants); the others are tenant _other.",
            registry=self.registry,
        )
        self.tenants_most.set(self.tenants.most)
        self.gateway_up = Gauge(
            "weir_gateway_up",
            "1 where the gateway told its metrics, 0 where it did not answer.",
            ("gateway",),
            registry=self.shared,
        )
        self.gateways_wanted = Gauge(
            "weir_gateways_wanted",
            "Gateway processes that the settings ask for, standbys included.",
            registry=self.shared,
        )
        self.part_up = Gauge(
            "weir_part_up",
            "1 where a process that the platform needs answers (control, Redis), or else 0.",
            ("part",),
            registry=self.shared,
        )
        self.engine_up = Gauge(
            "weir_engine_up",
            "1 where the replica told its engine's metrics, 0 where it did not answer.",
            ("model", "replica"),
            registry=self.shared,
        )
        self.replica_states = Gauge(
            "weir_replica_states",
            "Replicas by Ray Serve's state: RUNNING, STARTING, STOPPING and others.",
            ("model", "pool", "state"),
            registry=self.shared,
        )

    def _declare_requests(self) -> None:
        who = ("tenant", "model")
        self.requests = _TenantCounter(
            "weir_requests_total",
            "Requests answered, by HTTP status and error code (empty for none).",
            (*who, "endpoint", "status", "code"),
            registry=self.registry,
        )
        self.in_flight = _TenantGauge(
            "weir_requests_in_flight", "Requests being served.", who, registry=self.registry
        )
        self.cancelled = _TenantCounter(
            "weir_requests_cancelled_total",
            "Requests whose client went away before the end.",
            who,
            registry=self.registry,
        )
        self.prompt_tokens = _TenantCounter(
            "weir_prompt_tokens_total", "Prompt tokens.", who, registry=self.registry
        )
        self.cached_tokens = _TenantCounter(
            "weir_prompt_tokens_cached_total",
            "Prompt tokens that the engine found in its KV cache.",
            who,
            registry=self.registry,
        )
        self.output_tokens = _TenantCounter(
            "weir_output_tokens_total", "Generated tokens.", who, registry=self.registry
        )
        self.cost = _TenantCounter(
            "weir_cost_usd_total", "Billed to the tenant, in USD.", who, registry=self.registry
        )

    def _declare_latency(self) -> None:
        kind = ("model", "priority")
        self.ttft = Histogram(
            "weir_time_to_first_token_seconds",
            "From the request's arrival at the gateway to its first byte of output.",
            kind,
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.tpot = Histogram(
            "weir_time_per_output_token_seconds",
            "Mean time per generated token after the first.",
            kind,
            buckets=_TPOT_SECONDS,
            registry=self.registry,
        )
        self.duration = Histogram(
            "weir_request_duration_seconds",
            "From arrival to the last byte.",
            kind,
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.prompt_size = Histogram(
            "weir_prompt_size_tokens",
            "Prompt length.",
            kind,
            buckets=_TOKENS,
            registry=self.registry,
        )
        self.tenant_ttft = _TenantSummary(
            "weir_tenant_time_to_first_token_seconds",
            "The same per tenant, as sum and count.",
            ("tenant", "model"),
            registry=self.registry,
        )
        self.slo = _TenantCounter(
            "weir_slo_requests_total",
            "Requests by objective (ttft, tpot, availability, quality) and whether they kept it "
            "(met, missed). Each objective counts the requests that it applies to.",
            ("tenant", "model", "priority", "slo", "verdict"),
            registry=self.registry,
        )

    def _declare_routing(self) -> None:
        self.admission_wait = Histogram(
            "weir_admission_wait_seconds",
            "Time in the gateway's queue before dispatch.",
            ("model", "priority"),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.waiting = Gauge(
            "weir_admission_waiting",
            "Requests waiting in the gateway's queue.",
            ("model", "priority"),
            registry=self.registry,
        )
        self.running = Gauge(
            "weir_admission_running",
            "Requests that the gateway's queue has let go and that have not ended.",
            ("model", "priority"),
            registry=self.registry,
        )
        self.tenants_waiting = Gauge(
            "weir_admission_tenants_waiting",
            "Tenants with requests in the gateway's queue.",
            ("model", "priority"),
            registry=self.registry,
        )
        self.predicted_cached = _TenantCounter(
            "weir_prompt_tokens_predicted_cached_total",
            "Prompt tokens that the prefix index expected to be cached where they were sent.",
            ("tenant", "model"),
            registry=self.registry,
        )
        self.indexed_blocks = Gauge(
            "weir_prefix_index_blocks",
            "KV blocks in the prefix index.",
            ("model",),
            registry=self.registry,
        )
        self.latency_error = Gauge(
            "weir_latency_prediction_error_ratio",
            "Mean absolute relative error of latency predictions made beforehand.",
            ("model", "quantity"),
            registry=self.registry,
        )

    def _declare_handoffs(self) -> None:
        self.handoffs = Counter(
            "weir_handoffs_total",
            "Prompts that one replica was to compute and another to answer: taken, recomputed "
            "(the blocks did not arrive), whole (the request cannot be shared), prefill_failed.",
            ("model", "outcome"),
            registry=self.registry,
        )
        self.handoff_seconds = Histogram(
            "weir_handoff_seconds",
            "From asking a replica to fetch another's KV blocks to its first output.",
            ("model",),
            buckets=_SECONDS,
            registry=self.registry,
        )

    def _declare_fallback(self) -> None:
        self.spills = _TenantCounter(
            "weir_spills_total",
            "Requests that the model's student answered, by reason.",
            ("tenant", "model", "reason"),
            registry=self.registry,
        )
        self.spill_failures = Counter(
            "weir_spill_failures_total",
            "Requests that should have spilled and that the student could not take, by reason.",
            ("model", "reason"),
            registry=self.registry,
        )
        self.cascades = Counter(
            "weir_cascade_answers_total",
            "Answers that the student began, by what became of them (kept, escalated).",
            ("model", "verdict"),
            registry=self.registry,
        )
        self.circuit = Gauge(
            "weir_circuit_state",
            "Circuit breaker of the model's replicas: 0 closed, 1 half-open, 2 open.",
            ("model",),
            registry=self.registry,
        )

    def _declare_autoscaling(self) -> None:
        """As decided last; the same in every gateway."""
        told = {
            "target": "Replicas that were decided last.",
            "usd_per_hour": "What the replicas that were decided cost, in USD per hour.",
            "prefill_tokens_per_second": "Prompt tokens that one replica is reckoned to compute.",
            "decode_tokens_per_second": "Tokens that one replica is reckoned to generate.",
            "capacity_error": "Mean error of the learned capacity's predictions, as a share.",
            "start_seconds": "How long a replica is reckoned to take to start.",
            "interruptions_per_hour": "Interruptions of one replica that are reckoned with.",
        }
        self.autoscaling = {
            name: Gauge(
                f"weir_autoscaling_{name}", about, ("model", "pool"), registry=self.registry
            )
            for name, about in told.items()
        }
        self.spill_share = Gauge(
            "weir_autoscaling_spill_share",
            "Of the requests that may, the share that the autoscaler leaves to the student.",
            ("model", "priority"),
            registry=self.registry,
        )

    def _declare_replicas(self) -> None:
        self.kv_stored = Gauge(
            "weir_kv_event_blocks",
            "KV blocks that the replica has told of since this gateway knows it.",
            ("model", "replica"),
            registry=self.registry,
        )
        self.kv_stale = Gauge(
            "weir_kv_events_broken",
            "1 while KV events of the replica are missing, so that nothing is claimed of it.",
            ("model", "replica"),
            registry=self.registry,
        )
        self.retries = Counter(
            "weir_dispatch_retries_total",
            "Requests sent to another replica because the first one failed before any output.",
            ("model",),
            registry=self.registry,
        )
        self.moves = Counter(
            "weir_stream_moves_total",
            "Streams that went on at another replica, by reason (failure, drain, role).",
            ("model", "reason"),
            registry=self.registry,
        )
        self.recomputed_tokens = Counter(
            "weir_recomputed_tokens_total",
            "Tokens of prompts and outputs that moved streams brought to their new replicas.",
            ("model",),
            registry=self.registry,
        )
        self.replicas = Gauge(
            "weir_replicas", "Replicas that can be routed to.", ("model",), registry=self.shared
        )
        self.replicas_by_role = Gauge(
            "weir_replicas_by_role",
            "Replicas that can be routed to, by what they do now (mixed, prefill, decode).",
            ("model", "pool", "role"),
            registry=self.shared,
        )
        self.role_changes = Gauge(
            "weir_replica_role_changes",
            "Times that this gateway heard of a running replica's other role, by the new one.",
            ("model", "role"),
            registry=self.shared,
        )
        self.adapter_loads = Gauge(
            "weir_adapter_loads",
            "Loads of LoRA adapters into the replica's slots since its start.",
            ("model", "replica"),
            registry=self.shared,
        )
        self.replica_mfu = Gauge(
            "weir_replica_mfu_ratio",
            "Model FLOPs utilization: work per second over what the replica's device could do.",
            ("model", "replica"),
            registry=self.shared,
        )
        self.replica_mbu = Gauge(
            "weir_replica_mbu_ratio",
            "Model bandwidth utilization: weights and KV cache moved per second over the peak.",
            ("model", "replica"),
            registry=self.shared,
        )
        self.outstanding = Gauge(
            "weir_outstanding_tokens",
            "Tokens dispatched by this gateway and not yet done.",
            ("model",),
            registry=self.registry,
        )

    def _declare_directory(self) -> None:
        self.directory_age = Gauge(
            "weir_directory_age_seconds",
            "Since the database last said that what is known of tenants and keys is up to date.",
            registry=self.registry,
        )
        self.directory_revision = Gauge(
            "weir_directory_revision",
            "Number of the last change of tenants and keys that is in force here.",
            registry=self.registry,
        )

    def _declare_ledger(self) -> None:
        self.ledger_outbox_bytes = Gauge(
            "weir_ledger_outbox_bytes",
            "Usage records on this gateway's disk that the database does not have yet.",
            registry=self.registry,
        )
        self.ledger_held = Gauge(
            "weir_ledger_held_records",
            "Usage records in memory, because the outbox cannot be written (a full disk).",
            registry=self.registry,
        )
        self.ledger_lost = Counter(
            "weir_ledger_lost_records_total",
            "Usage records that could neither be written nor held: they will be on no bill.",
            registry=self.registry,
        )
        self.ledger_stream_up = Gauge(
            "weir_ledger_stream_up",
            "1 while usage records can be sent to Redis, 0 while they stay in the outbox.",
            registry=self.registry,
        )

    def _declare_features(self) -> None:
        self.feature_age = Histogram(
            "weir_feature_age_seconds",
            "Age of the oldest feature in a prompt.",
            ("model",),
            buckets=_AGE_SECONDS,
            registry=self.registry,
        )
        self.feature_lookups = _TenantCounter(
            "weir_feature_lookups_total",
            "Requests whose entity was looked up, by outcome (off: nothing was).",
            ("tenant", "model", "outcome"),
            registry=self.registry,
        )
        self.feature_wait = Histogram(
            "weir_feature_wait_seconds",
            "Time that a request waited for its features.",
            ("model",),
            buckets=_LOOKUP_SECONDS,
            registry=self.registry,
        )
        self.feature_reads = Counter(
            "weir_feature_reads_total",
            "Look-ups by where the answer came from: store, shared, cache, none (store down).",
            ("source",),
            registry=self.registry,
        )
        self.feature_defaults = Counter(
            "weir_feature_defaults_total",
            "Features that were replaced by their defaults, by reason.",
            ("service", "reason"),
            registry=self.registry,
        )
        self.feature_store_up = Gauge(
            "weir_feature_store_up",
            "1 while the feature store answers, 0 while the breaker is open.",
            registry=self.registry,
        )
        self.feature_store_breaks = Counter(
            "weir_feature_store_breaks_total",
            "Times that the connection to the feature store was given up.",
            registry=self.registry,
        )
        self.long_tail = _TenantCounter(
            "weir_long_tail_requests_total",
            "Requests about entities without generated features.",
            ("tenant", "model"),
            registry=self.registry,
        )
        self.tail_notes_dropped = Counter(
            "weir_tail_notes_dropped_total",
            "Long-tail entities that could not be queued for generation.",
            registry=self.registry,
        )

    def _declare_accounts(self) -> None:
        self.account_up = Gauge(
            "weir_account_store_up",
            "1 while the Redis in which it is counted what tenants use answers, else 0.",
            registry=self.registry,
        )
        self.account_alone = Counter(
            "weir_account_alone_total",
            "Reservations that were decided without that Redis, by outcome (granted, refused).",
            ("outcome",),
            registry=self.registry,
        )
        self.account_unsettled = Gauge(
            "weir_account_unsettled",
            "Reservations whose use that Redis has not acknowledged yet.",
            registry=self.registry,
        )

    def _declare_traces(self) -> None:
        self.traces_kept = Counter(
            "weir_traces_kept_total",
            "Requests whose trace was kept, by why (sampled, failed, slow, moved, spilled).",
            ("why",),
            registry=self.registry,
        )
        self.trace_spans_sent = Counter(
            "weir_trace_spans_sent_total",
            "Spans that the collector has taken.",
            registry=self.registry,
        )
        self.trace_spans_dropped = Counter(
            "weir_trace_spans_dropped_total",
            "Spans that are lost: the queue was full, or the collector did not take them (unsent).",
            ("reason",),
            registry=self.registry,
        )

    def _declare_batches(self) -> None:
        self.batch_lines = _TenantCounter(
            "weir_batch_lines_total",
            "Lines of batch jobs by outcome: completed, failed, or put off to be tried again.",
            ("tenant", "outcome"),
            registry=self.registry,
        )
        self.batch_lines_in_flight = Gauge(
            "weir_batch_lines_in_flight",
            "Lines of batch jobs that are computed or wait for admission.",
            registry=self.registry,
        )
