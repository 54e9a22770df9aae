"""What is paid, who bears it, what was saved."""

from __future__ import annotations

from panels import Dashboard, Panel, Query, Row, rate

_MODEL = 'model=~"$model"'
_TENANT = 'tenant=~"$tenant"'
_OF = f"{_MODEL},{_TENANT}"
_NO_SPOT = "the laptop has no spot machines"
_NO_BATCH = "no batch job runs"

COST = Dashboard(
    "weir-cost",
    "weir: cost",
    "What is paid, who bears it and what was saved. Amounts of the month are the ledger's, in UTC; "
    "rates are the gateways'.",
    (
        Row(
            "This month",
            (
                Panel(
                    "Paid",
                    "For the time of all replicas.",
                    (Query("sum (weir_month_paid_usd)", "paid"),),
                    "currencyUSD",
                    "stat",
                    6,
                ),
                Panel(
                    "Idle",
                    "Share of it for time in which nothing was done.",
                    (Query("sum (weir_month_idle_usd) / (sum (weir_month_paid_usd) > 0)", "idle"),),
                    "percentunit",
                    "stat",
                    6,
                ),
                Panel(
                    "Billed",
                    "To all tenants.",
                    (Query("sum (weir_month_billed_usd)", "billed"),),
                    "currencyUSD",
                    "stat",
                    6,
                ),
                Panel(
                    "Saved",
                    "By the KV cache, the student and spot machines.",
                    (Query("sum (weir_month_saved_usd)", "saved"),),
                    "currencyUSD",
                    "stat",
                    6,
                ),
                Panel(
                    "Paid and idle by pool",
                    "What was paid for work, and for idle time.",
                    (
                        Query(
                            "sum by (model, pool) (weir_month_paid_usd) - "
                            "sum by (model, pool) (weir_month_idle_usd)",
                            "{{model}} {{pool}} work",
                        ),
                        Query(
                            "sum by (model, pool) (weir_month_idle_usd)", "{{model}} {{pool}} idle"
                        ),
                    ),
                    "currencyUSD",
                    "stack",
                ),
                Panel(
                    "Cost and bill by class",
                    "What a class's work cost, and what was billed for it.",
                    (
                        Query("sum by (priority) (weir_month_cost_usd)", "{{priority}} cost"),
                        Query("sum by (priority) (weir_month_billed_usd)", "{{priority}} billed"),
                    ),
                    "currencyUSD",
                ),
                Panel(
                    "What was saved by what",
                    "Prompt tokens that were cached, at what the others took; the student's lower "
                    "price; the lower price of spot machines.",
                    (Query("sum by (by) (weir_month_saved_usd)", "{{by}}"),),
                    "currencyUSD",
                    "stack",
                ),
            ),
        ),
        Row(
            "Bills",
            (
                Panel(
                    "Billed per hour by tenant",
                    "At the present pace.",
                    (Query(f"3600 * {rate('weir_cost_usd_total', 'tenant', _OF)}", "{{tenant}}"),),
                    "currencyUSD",
                    "stack",
                ),
                Panel(
                    "Billed per hour by model",
                    "At the present pace.",
                    (Query(f"3600 * {rate('weir_cost_usd_total', 'model', _OF)}", "{{model}}"),),
                    "currencyUSD",
                    "stack",
                ),
                Panel(
                    "Cached share of prompt tokens",
                    "By tenant: what is cached is cheaper.",
                    (
                        Query(
                            f"{rate('weir_prompt_tokens_cached_total', 'tenant', _OF)} / "
                            f"{rate('weir_prompt_tokens_total', 'tenant', _OF)}",
                            "{{tenant}}",
                        ),
                    ),
                    "percentunit",
                    most=1.0,
                ),
            ),
        ),
        Row(
            "Replicas",
            (
                Panel(
                    "Replica hours this month",
                    "By model and pool.",
                    (
                        Query(
                            "sum by (model, pool) (weir_month_replica_hours)", "{{model}} {{pool}}"
                        ),
                    ),
                    "h",
                ),
                Panel(
                    "Saved by spot machines this month",
                    "Against the same replicas in a market without interruptions.",
                    (Query('weir_month_saved_usd{by="spot"} > 0', "spot"),),
                    "currencyUSD",
                    laptop=_NO_SPOT,
                ),
                Panel(
                    "Batch lines",
                    "Lines of batch jobs by outcome.",
                    (Query(rate("weir_batch_lines_total", "outcome", _TENANT), "{{outcome}}"),),
                    "/s",
                    "stack",
                    laptop=_NO_BATCH,
                ),
            ),
        ),
    ),
    ("model", "tenant"),
)
