"""Alerts on the platform itself: what stands still, fills up or goes away behind good answers.

All of them are for one Prometheus that reads ``/metrics`` of the front door (see
docs/observability.md).
"""

from __future__ import annotations

from weir.slo.alerts import Alert

_M = 60
_OUTBOX_BYTES = 10_000_000

_PROCESSES = (
    Alert(
        "WeirMetricsMissing",
        "page",
        "absent(weir_gateway_up)",
        "There are no metrics of weir.",
        "No gateway has told its metrics for five minutes. Either nothing answers, or Prometheus "
        "may not read them: no other alert can fire meanwhile.",
        5 * _M,
    ),
    Alert(
        "WeirGatewayMissing",
        "ticket",
        "sum(weir_gateway_up) < max(weir_gateways_wanted)",
        "{{ $value }} gateways answer, fewer than there should be.",
        "The others of gateway.replicas and gateway.standbys do not run, or do not answer.",
        5 * _M,
    ),
    Alert(
        "WeirControlAway",
        "ticket",
        'max(weir_part_up{part="control"}) == 0',
        "The control process does not answer.",
        "Models answer as before. The admin API does not, and usage records wait in the outboxes.",
        5 * _M,
    ),
    Alert(
        "WeirRedisAway",
        "page",
        'max(weir_part_up{part="Redis"}) == 0',
        "Redis does not answer.",
        "Stored responses and the ledger's stream are away.",
        2 * _M,
    ),
    Alert(
        "WeirAccountsAway",
        "page",
        "min(weir_account_store_up) == 0",
        "Quotas and budgets are decided without Redis.",
        "A gateway does not reach the Redis in which it is counted what tenants use. It grants "
        "each tenant a small part of its bounds, and refuses the rest.",
        2 * _M,
    ),
    Alert(
        "WeirServeAway",
        "page",
        'max(weir_part_up{part="Serve"}) == 0',
        "Ray Serve's controller does not answer.",
        "What runs goes on. Nothing is started, replaced or scaled.",
        5 * _M,
    ),
)

_REPLICAS = (
    Alert(
        "WeirModelWithoutReplicas",
        "page",
        "max by (model) (weir_replicas) == 0 and on (model) "
        "sum by (model) (weir_replica_states) > 0",
        "{{ $labels.model }} has no replica that answers.",
        "Ray Serve has replicas of the model, but none that the gateways can send anything to.",
        5 * _M,
    ),
    Alert(
        "WeirReplicasMissing",
        "ticket",
        'sum by (model, pool) (weir_replica_states{state!~"RUNNING|STOPPING"}) > 0',
        "{{ $value }} replicas of {{ $labels.model }} {{ $labels.pool }} do not come up.",
        "Replicas that Ray Serve wants have been starting for a quarter of an hour.",
        15 * _M,
    ),
    Alert(
        "WeirEngineSilent",
        "ticket",
        "max by (model, replica) (weir_engine_up) == 0",
        "Replica {{ $labels.replica }} of {{ $labels.model }} tells no metrics.",
        "It is a member, but its port does not answer: it hangs, or the network is cut.",
        5 * _M,
    ),
    Alert(
        "WeirCircuitOpen",
        "page",
        "max by (model) (weir_circuit_state) == 2",
        "The circuit of {{ $labels.model }} is open.",
        "Its replicas failed so often that a gateway sends requests to the student only.",
        5 * _M,
    ),
    Alert(
        "WeirStreamsMovedByFailures",
        "ticket",
        'sum by (model) (increase(weir_stream_moves_total{reason="failure"}[15m])) > 10',
        "{{ $value | humanize }} streams of {{ $labels.model }} lost their replica.",
        "They went on elsewhere, so clients noticed a pause. Replicas die, or the network breaks.",
    ),
    Alert(
        "WeirEnginePreempting",
        "ticket",
        "sum by (replica) (rate(vllm:num_preemptions_total[15m])) > 0.1",
        "Replica {{ $labels.replica }} preempts requests.",
        "Its KV cache is too small for what it runs: requests are thrown out and computed again.",
        15 * _M,
    ),
    Alert(
        "WeirKvCacheFull",
        "ticket",
        "min_over_time(vllm:kv_cache_usage_perc[15m]) > 0.98",
        "The KV cache of replica {{ $labels.replica }} has been full for a quarter of an hour.",
        "Requests wait for blocks. More replicas, shorter contexts or KV tiers would help.",
    ),
)

_ROUTING = (
    Alert(
        "WeirQueueNotEmptying",
        "ticket",
        'sum by (model, priority) (min_over_time(weir_admission_waiting{priority!="batch"}[15m]))'
        " > 10",
        "{{ $value }} requests of class {{ $labels.priority }} wait for {{ $labels.model }}.",
        "The queue has not been shorter for a quarter of an hour: there is more to do than the "
        "replicas can.",
    ),
    Alert(
        "WeirKvEventsBroken",
        "ticket",
        "max by (model, replica) (weir_kv_events_broken) == 1",
        "KV events of replica {{ $labels.replica }} are missing.",
        "A gateway lost some and cannot get them again, so it expects nothing to be cached there.",
        10 * _M,
    ),
    Alert(
        "WeirKvEventsStale",
        "ticket",
        "(sum by (replica) (rate(vllm:prompt_tokens_total[15m])) - "
        "sum by (replica) (rate(vllm:prefix_cache_hits_total[15m]))) > 10 and on (replica) "
        "min by (replica) (changes(weir_kv_event_blocks[15m])) == 0",
        "Replica {{ $labels.replica }} tells of no KV blocks.",
        "It computes prompts, but a gateway has heard of no new block for a quarter of an hour. "
        "Requests are placed without knowing what is cached there.",
        5 * _M,
    ),
    Alert(
        "WeirHitRateMispredicted",
        "ticket",
        "abs(sum by (model) (rate(weir_prompt_tokens_predicted_cached_total[30m])) - "
        "sum by (model) (rate(weir_prompt_tokens_cached_total[30m]))) / "
        "sum by (model) (rate(weir_prompt_tokens_total[30m])) > 0.2",
        "What is cached for {{ $labels.model }} differs from what was expected.",
        "Predicted and real hit rate are {{ $value | humanizePercentage }} of the prompt tokens "
        "apart: the prefix index does not know what the engines hold.",
        30 * _M,
    ),
    Alert(
        "WeirLatencyMispredicted",
        "ticket",
        "max by (model, quantity) (weir_latency_prediction_error_ratio) > 1",
        "Latencies of {{ $labels.model }} cannot be predicted.",
        "The mean error of the {{ $labels.quantity }} is {{ $value | humanizePercentage }}: "
        "overload spills and disaggregation are decided on wrong numbers.",
        30 * _M,
    ),
    Alert(
        "WeirHandoffsFailing",
        "ticket",
        'sum by (model) (rate(weir_handoffs_total{outcome=~"recomputed|prefill_failed"}[15m])) / '
        'sum by (model) (rate(weir_handoffs_total{outcome!="whole"}[15m])) > 0.2',
        "{{ $value | humanizePercentage }} of the hand-offs of {{ $labels.model }} fail.",
        "Prompts that one replica computed did not arrive at the other, and are computed again.",
        15 * _M,
    ),
)

_FALLBACK = (
    Alert(
        "WeirSpillRateHigh",
        "ticket",
        'sum by (model) (rate(weir_spills_total{reason=~"overload|failure"}[30m])) / '
        'sum by (model) (rate(weir_requests_total{status="200"}[30m])) > 0.2',
        "{{ $value | humanizePercentage }} of {{ $labels.model }}'s answers are its student's.",
        "They spill because of overload or failure, not because it was asked for.",
        10 * _M,
    ),
    Alert(
        "WeirSpillsFailing",
        "ticket",
        "sum by (model) (increase(weir_spill_failures_total[15m])) > 10",
        "The student of {{ $labels.model }} does not take what spills.",
        "{{ $value | humanize }} requests should have been answered by it and were not.",
    ),
)

_FEATURES = (
    Alert(
        "WeirFeatureStoreAway",
        "ticket",
        "min(weir_feature_store_up) == 0",
        "The feature store does not answer.",
        "Prompts are enriched with defaults; nothing waits for it.",
        5 * _M,
    ),
    Alert(
        "WeirFeaturesStale",
        "ticket",
        'sum by (service) (rate(weir_feature_defaults_total{reason="stale"}[30m])) > 0',
        "Features of {{ $labels.service }} are too old to be used.",
        "They are replaced by their defaults: the job that materializes them does not run.",
        30 * _M,
    ),
)

_MONEY = (
    Alert(
        "WeirTenantBudgetSpent",
        "ticket",
        'sum by (tenant) (increase(weir_requests_total{code="insufficient_quota"}[15m])) > 0',
        "The budget of {{ $labels.tenant }} is spent.",
        "Its requests are refused until the budget is renewed or raised.",
    ),
    Alert(
        "WeirAccountsUnsettled",
        "ticket",
        "max by (gateway) (weir_account_unsettled) > 1000",
        "Gateway {{ $labels.gateway }} could not tell Redis what {{ $value }} requests used.",
        "Until it can, their reservations keep other requests of the same tenants out.",
        10 * _M,
    ),
    Alert(
        "WeirLedgerOutboxGrowing",
        "ticket",
        f"weir_ledger_outbox_bytes > {_OUTBOX_BYTES} and deriv(weir_ledger_outbox_bytes[15m]) > 0",
        "Usage records pile up in gateway {{ $labels.gateway }}.",
        "{{ $value | humanize1024 }}B wait on its disk and grow: Redis, the control process or the "
        "database does not take them.",
        15 * _M,
    ),
    Alert(
        "WeirLedgerStreamAway",
        "ticket",
        "min by (gateway) (weir_ledger_stream_up) == 0",
        "Gateway {{ $labels.gateway }} cannot send usage records.",
        "They stay in its outbox, and bills and reports lag behind.",
        10 * _M,
    ),
    Alert(
        "WeirLedgerDiskFull",
        "page",
        "max by (gateway) (weir_ledger_held_records) > 0",
        "Gateway {{ $labels.gateway }} cannot write its outbox.",
        "{{ $value }} usage records are in memory only. They are lost if it ends.",
        5 * _M,
    ),
    Alert(
        "WeirLedgerRecordsLost",
        "page",
        "sum by (gateway) (increase(weir_ledger_lost_records_total[30m])) > 0",
        "Gateway {{ $labels.gateway }} has lost usage records.",
        "They will be on no bill.",
    ),
    Alert(
        "WeirBatchLinesFailing",
        "ticket",
        'sum by (tenant) (rate(weir_batch_lines_total{outcome="failed"}[30m])) / '
        'sum by (tenant) (rate(weir_batch_lines_total{outcome=~"failed|completed"}[30m])) > 0.1',
        "{{ $value | humanizePercentage }} of the batch lines of {{ $labels.tenant }} fail.",
        "Their own errors are in the batch's error file.",
        15 * _M,
    ),
)

_SETTINGS = (
    Alert(
        "WeirDirectoryStale",
        "ticket",
        "max by (gateway) (weir_directory_age_seconds) > 300",
        "Gateway {{ $labels.gateway }} does not hear of changes of tenants and keys.",
        "For {{ $value | humanizeDuration }} the database has not said that what it knows is up to "
        "date: revoked keys may still open.",
        5 * _M,
    ),
    Alert(
        "WeirTenantSeriesFull",
        "ticket",
        "max by (gateway) (weir_metrics_tenants / weir_metrics_tenants_limit) >= 1",
        "Gateway {{ $labels.gateway }} has no series left for further tenants.",
        "They are counted together as _other: their objectives raise no alerts of their own.",
        15 * _M,
    ),
)

#: All of them.
PLATFORM_ALERTS = (
    *_PROCESSES,
    *_REPLICAS,
    *_ROUTING,
    *_FALLBACK,
    *_FEATURES,
    *_MONEY,
    *_SETTINGS,
)
