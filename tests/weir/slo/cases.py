"""For each alert on the platform: series with which it fires, and series with which it does not.

Series are in promtool's notation, one value a minute (``0+5x60``: 0, 5, 10 … 300), and are looked
at after an hour. An alert is silent for the right reason: each silent case is near the firing one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

Series = Mapping[str, str]
_AN_HOUR = "x60"


@dataclass(frozen=True, slots=True)
class Case:
    """With ``firing`` the alert fires once, with ``silent`` it does not."""

    alert: str
    firing: Series
    silent: Series


def _gauge(alert: str, series: str, firing: float, silent: float) -> Case:
    return Case(alert, {series: f"{firing}{_AN_HOUR}"}, {series: f"{silent}{_AN_HOUR}"})


CASES = (
    Case(
        "WeirMetricsMissing",
        {'weir_gateway_up{gateway="a"}': "1x10 _x50"},
        {'weir_gateway_up{gateway="a"}': "0x60"},
    ),
    Case(
        "WeirGatewayMissing",
        {
            'weir_gateway_up{gateway="a"}': "1x60",
            'weir_gateway_up{gateway="b"}': "0x60",
            "weir_gateways_wanted": "2x60",
        },
        {
            'weir_gateway_up{gateway="a"}': "1x60",
            'weir_gateway_up{gateway="b"}': "1x20 0x3 1x40",
            "weir_gateways_wanted": "2x60",
        },
    ),
    _gauge("WeirControlAway", 'weir_part_up{part="control"}', 0, 1),
    _gauge("WeirRedisAway", 'weir_part_up{part="Redis"}', 0, 1),
    Case(
        "WeirAccountsAway",
        {
            'weir_account_store_up{gateway="a"}': "1x60",
            'weir_account_store_up{gateway="b"}': "0x60",
        },
        # A gateway that counts for itself has none: its gauge is no number.
        {
            'weir_account_store_up{gateway="a"}': "1x60",
            'weir_account_store_up{gateway="b"}': " ".join(["NaN"] * 61),
        },
    ),
    _gauge("WeirServeAway", 'weir_part_up{part="Serve"}', 0, 1),
    Case(
        "WeirModelWithoutReplicas",
        {
            'weir_replicas{model="m"}': "0x60",
            'weir_replica_states{model="m",pool="",state="STARTING"}': "1x60",
        },
        # Scaled to nothing: nobody wants a replica.
        {'weir_replicas{model="m"}': "0x60"},
    ),
    Case(
        "WeirReplicasMissing",
        {'weir_replica_states{model="m",pool="p",state="STARTING"}': "2x60"},
        {
            'weir_replica_states{model="m",pool="p",state="RUNNING"}': "2x60",
            'weir_replica_states{model="m",pool="p",state="STOPPING"}': "1x60",
            'weir_replica_states{model="m",pool="p",state="STARTING"}': "_x50 1x10",
        },
    ),
    _gauge("WeirEngineSilent", 'weir_engine_up{model="m",replica="r"}', 0, 1),
    _gauge("WeirCircuitOpen", 'weir_circuit_state{gateway="a",model="m"}', 2, 1),
    Case(
        "WeirStreamsMovedByFailures",
        {'weir_stream_moves_total{model="m",reason="failure"}': "0+1x60"},
        {
            'weir_stream_moves_total{model="m",reason="failure"}': "0x50 1x10",
            'weir_stream_moves_total{model="m",reason="drain"}': "0+5x60",
        },
    ),
    Case(
        "WeirEnginePreempting",
        {'vllm:num_preemptions_total{replica="r"}': "0+30x60"},
        {'vllm:num_preemptions_total{replica="r"}': "0+3x60"},
    ),
    Case(
        "WeirKvCacheFull",
        {'vllm:kv_cache_usage_perc{replica="r"}': "0.995x60"},
        {'vllm:kv_cache_usage_perc{replica="r"}': "1x50 0.5 1x9"},
    ),
    Case(
        "WeirQueueNotEmptying",
        {'weir_admission_waiting{gateway="a",model="m",priority="standard"}': "40x60"},
        {
            'weir_admission_waiting{gateway="a",model="m",priority="standard"}': "40x50 0 40x9",
            'weir_admission_waiting{gateway="a",model="m",priority="batch"}': "4000x60",
        },
    ),
    _gauge("WeirKvEventsBroken", 'weir_kv_events_broken{model="m",replica="r"}', 1, 0),
    Case(
        "WeirKvEventsStale",
        {
            'vllm:prompt_tokens_total{replica="r"}': "0+6000x60",
            'vllm:prefix_cache_hits_total{replica="r"}': "0+1000x60",
            'weir_kv_event_blocks{gateway="a",replica="r"}': "0+100x60",
            'weir_kv_event_blocks{gateway="b",replica="r"}': "900x60",
        },
        # All of its prompts are cached: there is nothing to tell of.
        {
            'vllm:prompt_tokens_total{replica="r"}': "0+6000x60",
            'vllm:prefix_cache_hits_total{replica="r"}': "0+6000x60",
            'weir_kv_event_blocks{gateway="a",replica="r"}': "900x60",
        },
    ),
    Case(
        "WeirHitRateMispredicted",
        {
            'weir_prompt_tokens_total{tenant="t",model="m"}': "0+1000x120",
            'weir_prompt_tokens_cached_total{tenant="t",model="m"}': "0+300x120",
            'weir_prompt_tokens_predicted_cached_total{tenant="t",model="m"}': "0+800x120",
        },
        {
            'weir_prompt_tokens_total{tenant="t",model="m"}': "0+1000x120",
            'weir_prompt_tokens_cached_total{tenant="t",model="m"}': "0+700x120",
            'weir_prompt_tokens_predicted_cached_total{tenant="t",model="m"}': "0+800x120",
        },
    ),
    _gauge(
        "WeirLatencyMispredicted",
        'weir_latency_prediction_error_ratio{model="m",quantity="ttft"}',
        1.6,
        0.6,
    ),
    Case(
        "WeirHandoffsFailing",
        {
            'weir_handoffs_total{model="m",outcome="taken"}': "0+6x60",
            'weir_handoffs_total{model="m",outcome="recomputed"}': "0+3x60",
        },
        {
            'weir_handoffs_total{model="m",outcome="taken"}': "0+6x60",
            'weir_handoffs_total{model="m",outcome="recomputed"}': "0+1x60",
            'weir_handoffs_total{model="m",outcome="whole"}': "0+90x60",
        },
    ),
    Case(
        "WeirSpillRateHigh",
        {
            'weir_spills_total{tenant="t",model="m",reason="overload"}': "0+30x60",
            'weir_requests_total{tenant="t",model="m",status="200"}': "0+100x60",
        },
        {
            'weir_spills_total{tenant="t",model="m",reason="overload"}': "0+10x60",
            'weir_spills_total{tenant="t",model="m",reason="long-tail"}': "0+80x60",
            'weir_requests_total{tenant="t",model="m",status="200"}': "0+100x60",
        },
    ),
    Case(
        "WeirSpillsFailing",
        {'weir_spill_failures_total{model="m",reason="overload"}': "0+2x60"},
        {'weir_spill_failures_total{model="m",reason="overload"}': "0x50 5x10"},
    ),
    _gauge("WeirFeatureStoreAway", 'weir_feature_store_up{gateway="a"}', 0, 1),
    Case(
        "WeirFeaturesStale",
        {'weir_feature_defaults_total{service="s",reason="stale"}': "0+1x120"},
        {'weir_feature_defaults_total{service="s",reason="missing"}': "0+50x120"},
    ),
    Case(
        "WeirTenantBudgetSpent",
        {'weir_requests_total{tenant="t",code="insufficient_quota",status="429"}': "0+1x60"},
        {'weir_requests_total{tenant="t",code="rate_limit_exceeded",status="429"}': "0+9x60"},
    ),
    _gauge("WeirAccountsUnsettled", 'weir_account_unsettled{gateway="a"}', 5000, 10),
    Case(
        "WeirLedgerOutboxGrowing",
        {'weir_ledger_outbox_bytes{gateway="a"}': "1000000+1000000x60"},
        # Large, but it is being worked off.
        {'weir_ledger_outbox_bytes{gateway="a"}': "90000000-1000000x60"},
    ),
    _gauge("WeirLedgerStreamAway", 'weir_ledger_stream_up{gateway="a"}', 0, 1),
    _gauge("WeirLedgerDiskFull", 'weir_ledger_held_records{gateway="a"}', 12, 0),
    Case(
        "WeirLedgerRecordsLost",
        {'weir_ledger_lost_records_total{gateway="a"}': "0x40 7x20"},
        {'weir_ledger_lost_records_total{gateway="a"}': "7x60"},
    ),
    Case(
        "WeirBatchLinesFailing",
        {
            'weir_batch_lines_total{tenant="t",outcome="failed"}': "0+5x60",
            'weir_batch_lines_total{tenant="t",outcome="completed"}': "0+20x60",
        },
        {
            'weir_batch_lines_total{tenant="t",outcome="failed"}': "0+1x60",
            'weir_batch_lines_total{tenant="t",outcome="completed"}': "0+20x60",
            'weir_batch_lines_total{tenant="t",outcome="put off"}': "0+90x60",
        },
    ),
    _gauge("WeirDirectoryStale", 'weir_directory_age_seconds{gateway="a"}', 900, 20),
    Case(
        "WeirTenantSeriesFull",
        {
            'weir_metrics_tenants{gateway="a"}': "2000x60",
            'weir_metrics_tenants_limit{gateway="a"}': "2000x60",
        },
        {
            'weir_metrics_tenants{gateway="a"}': "1999x60",
            'weir_metrics_tenants_limit{gateway="a"}': "2000x60",
        },
    ),
)
