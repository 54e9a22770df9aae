"""What the platform does now."""

from __future__ import annotations

from panels import Dashboard, Panel, Query, Row, quantiles, rate

_MODEL = 'model=~"$model"'
_TENANT = 'tenant=~"$tenant"'
_OF = f"{_MODEL},{_TENANT}"
_FAILED = ',status=~"5.."'

OVERVIEW = Dashboard(
    "weir-overview",
    "weir: overview",
    "What the platform does now. Everything else starts here.",
    (
        Row(
            "Now",
            (
                Panel(
                    "Requests",
                    "Answers per second, whatever their status.",
                    (Query(rate("weir_requests_total", "", _OF), "requests"),),
                    "reqps",
                    "stat",
                    4,
                ),
                Panel(
                    "Failed",
                    "Share of requests that the platform failed (status 500 or more).",
                    (
                        Query(
                            f"({rate('weir_requests_total', '', _OF + _FAILED)} or "
                            f"vector(0)) / {rate('weir_requests_total', '', _OF)}",
                            "failed",
                        ),
                    ),
                    "percentunit",
                    "stat",
                    4,
                ),
                Panel(
                    "Tokens out",
                    "Generated per second.",
                    (Query(rate("weir_output_tokens_total", "", _OF), "output"),),
                    "tokens/s",
                    "stat",
                    4,
                ),
                Panel(
                    "Replicas",
                    "That can be routed to.",
                    (Query(f"sum (weir_replicas{{{_MODEL}}})", "replicas"),),
                    "short",
                    "stat",
                    4,
                ),
                Panel(
                    "Gateways",
                    "That answer.",
                    (Query("sum (weir_gateway_up)", "gateways"),),
                    "short",
                    "stat",
                    4,
                ),
                Panel(
                    "Paid this month",
                    "For replicas, by the ledger.",
                    (Query("sum (weir_month_paid_usd)", "paid"),),
                    "currencyUSD",
                    "stat",
                    4,
                ),
            ),
        ),
        Row(
            "Traffic",
            (
                Panel(
                    "Requests by model",
                    "Answers per second.",
                    (Query(rate("weir_requests_total", "model", _OF), "{{model}}"),),
                    "reqps",
                ),
                Panel(
                    "Requests by status",
                    "429: a tenant's own bounds. 503: the platform was full or not there.",
                    (
                        Query(
                            rate("weir_requests_total", "status, code", _OF), "{{status}} {{code}}"
                        ),
                    ),
                    "reqps",
                    "stack",
                ),
                Panel(
                    "Tokens",
                    "Prompt tokens that were computed, that were cached, and generated ones.",
                    (
                        Query(
                            f"{rate('weir_prompt_tokens_total', '', _OF)} - "
                            f"{rate('weir_prompt_tokens_cached_total', '', _OF)}",
                            "computed",
                        ),
                        Query(rate("weir_prompt_tokens_cached_total", "", _OF), "cached"),
                        Query(rate("weir_output_tokens_total", "", _OF), "generated"),
                    ),
                    "tokens/s",
                    "stack",
                ),
                Panel(
                    "Time to first token",
                    "From arrival at the gateway, by class.",
                    quantiles("weir_time_to_first_token_seconds", "priority", _MODEL),
                    "s",
                ),
                Panel(
                    "Time per output token",
                    "Mean of each answer after its first token, by class.",
                    quantiles("weir_time_per_output_token_seconds", "priority", _MODEL),
                    "s",
                ),
                Panel(
                    "In flight and waiting",
                    "Requests that run, and that wait in the gateways' queues.",
                    (
                        Query(f"sum (weir_admission_running{{{_MODEL}}})", "running"),
                        Query(f"sum (weir_admission_waiting{{{_MODEL}}})", "waiting"),
                    ),
                ),
            ),
        ),
        Row(
            "Parts",
            (
                Panel(
                    "Parts that answer",
                    "1: yes. Redis, Ray Serve's controller, the control process.",
                    (Query("max by (part) (weir_part_up)", "{{part}}"),),
                    most=1.05,
                ),
                Panel(
                    "Replicas by state",
                    "As Ray Serve counts them.",
                    (Query("sum by (model, state) (weir_replica_states)", "{{model}} {{state}}"),),
                    kind="stack",
                ),
                Panel(
                    "Usage records that wait",
                    "On the gateways' disks, until the database has them.",
                    (Query("sum by (gateway) (weir_ledger_outbox_bytes)", "{{gateway}}"),),
                    "bytes",
                ),
            ),
        ),
    ),
    ("model", "tenant"),
)
