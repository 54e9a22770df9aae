"""Placement, admission and fairness."""

from __future__ import annotations

from panels import Dashboard, Panel, Query, Row, quantiles, rate

_MODEL = 'model=~"$model"'
_TENANT = 'tenant=~"$tenant"'
_CLASS = 'priority=~"$priority"'
_OF = f"{_MODEL},{_TENANT}"

_TOKENS_OF_TENANT, _TOKENS_OF_ALL = (
    f"({rate('weir_prompt_tokens_total', by, _OF)} + {rate('weir_output_tokens_total', by, _OF)})"
    for by in ("tenant", "")
)

ROUTER = Dashboard(
    "weir-router",
    "weir: router and admission",
    "Where requests go, how well that is predicted, who waits and whether sharing is fair.",
    (
        Row(
            "Prefix cache",
            (
                Panel(
                    "Hit rate, predicted and real",
                    "Share of prompt tokens. Far apart: the index does not know what engines hold.",
                    (
                        Query(
                            f"{rate('weir_prompt_tokens_predicted_cached_total', 'model', _OF)} / "
                            f"{rate('weir_prompt_tokens_total', 'model', _OF)}",
                            "predicted {{model}}",
                        ),
                        Query(
                            f"{rate('weir_prompt_tokens_cached_total', 'model', _OF)} / "
                            f"{rate('weir_prompt_tokens_total', 'model', _OF)}",
                            "real {{model}}",
                        ),
                    ),
                    "percentunit",
                    most=1.0,
                ),
                Panel(
                    "Blocks in the index",
                    "KV blocks that the gateways know of.",
                    (Query(f"max by (model) (weir_prefix_index_blocks{{{_MODEL}}})", "{{model}}"),),
                ),
                Panel(
                    "KV events",
                    "Blocks that replicas tell of. None from a busy replica: its events are lost.",
                    (
                        Query(
                            "max by (replica) "
                            f"(rate(weir_kv_event_blocks{{{_MODEL}}}[$__rate_interval]))",
                            "{{replica}}",
                        ),
                    ),
                    "blocks/s",
                ),
            ),
        ),
        Row(
            "Decisions",
            (
                Panel(
                    "Requests by replica",
                    "Answers that engines finished, per second.",
                    (Query(rate("vllm:request_success_total", "replica"), "{{replica}}"),),
                    "reqps",
                    "stack",
                    6,
                ),
                Panel(
                    "Tokens outstanding",
                    "Dispatched and not yet done.",
                    (Query(f"sum by (model) (weir_outstanding_tokens{{{_MODEL}}})", "{{model}}"),),
                    width=6,
                ),
                Panel(
                    "Error of latency predictions",
                    "Mean, relative. Above 1 a prediction is worth nothing.",
                    (
                        Query(
                            "max by (model, quantity) "
                            f"(weir_latency_prediction_error_ratio{{{_MODEL}}})",
                            "{{model}} {{quantity}}",
                        ),
                    ),
                    "percentunit",
                    width=6,
                ),
                Panel(
                    "Retries and moves",
                    "Requests that were sent elsewhere, before and after their first output.",
                    (
                        Query(
                            rate("weir_dispatch_retries_total", "model", _MODEL), "retry {{model}}"
                        ),
                        Query(
                            rate("weir_stream_moves_total", "model, reason", _MODEL),
                            "{{reason}} {{model}}",
                        ),
                    ),
                    "/s",
                    width=6,
                    laptop="no replica fails or drains",
                ),
            ),
        ),
        Row(
            "Queue",
            (
                Panel(
                    "Waiting by class",
                    "In all gateways' queues.",
                    (
                        Query(
                            f"sum by (priority) (weir_admission_waiting{{{_MODEL},{_CLASS}}})",
                            "{{priority}}",
                        ),
                    ),
                    kind="stack",
                ),
                Panel(
                    "Wait before dispatch",
                    "By class.",
                    quantiles("weir_admission_wait_seconds", "priority", f"{_MODEL},{_CLASS}"),
                    "s",
                ),
                Panel(
                    "Running by class",
                    "Requests that were let go.",
                    (
                        Query(
                            f"sum by (priority) (weir_admission_running{{{_MODEL},{_CLASS}}})",
                            "{{priority}}",
                        ),
                    ),
                    kind="stack",
                ),
            ),
        ),
        Row(
            "Fairness",
            (
                Panel(
                    "Share of tokens by tenant",
                    "Of all prompt and output tokens. Under load it follows the weights.",
                    (
                        Query(
                            f"topk(20, {_TOKENS_OF_TENANT} / ignoring (tenant) group_left () "
                            f"{_TOKENS_OF_ALL})",
                            "{{tenant}}",
                        ),
                    ),
                    "percentunit",
                    "stack",
                ),
                Panel(
                    "Tenants that wait",
                    "By class.",
                    (
                        Query(
                            "sum by (priority) "
                            f"(weir_admission_tenants_waiting{{{_MODEL},{_CLASS}}})",
                            "{{priority}}",
                        ),
                    ),
                ),
                Panel(
                    "Requests in flight by tenant",
                    "The twenty with the most.",
                    (
                        Query(
                            f"topk(20, sum by (tenant) (weir_requests_in_flight{{{_OF}}}))",
                            "{{tenant}}",
                        ),
                    ),
                    kind="stack",
                ),
            ),
        ),
    ),
    ("model", "tenant", "priority"),
)
