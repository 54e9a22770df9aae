"""Objectives and error budgets."""

from __future__ import annotations

from panels import Dashboard, Panel, Query, Row, quantiles, rate

_TENANT = 'tenant=~"$tenant"'
_CLASS = 'priority=~"$priority"'
_BURN = "/ on (slo, priority) group_left () (1 - weir:slo_objective:ratio)"

_RECORDED = f"{_TENANT},{_CLASS}"

SLO = Dashboard(
    "weir-slo",
    "weir: objectives and error budgets",
    "How much of each tenant's error budget is left, and how fast it goes. From the recording "
    "rules of `weir slo rules`.",
    (
        Row(
            "Error budgets",
            (
                Panel(
                    "Budget left",
                    "Of the whole window. Below 0: more was missed than the objective allows.",
                    (
                        Query(
                            f"weir:slo_budget_left:ratio{{{_RECORDED}}}",
                            "{{tenant}} {{priority}} {{slo}}",
                        ),
                    ),
                    "percentunit",
                    width=12,
                    least=None,
                ),
                Panel(
                    "Lowest budgets",
                    "The ten that are nearest to their end.",
                    (
                        Query(
                            f"bottomk(10, weir:slo_budget_left:ratio{{{_RECORDED}}})",
                            "{{tenant}} {{priority}} {{slo}}",
                        ),
                    ),
                    "percentunit",
                    "table",
                    12,
                ),
                Panel(
                    "Burn rate, one hour",
                    "1: the budget lasts exactly as long as the window. 14.4 pages.",
                    (
                        Query(
                            f"weir:slo_error_ratio:1h{{{_RECORDED}}} {_BURN}",
                            "{{tenant}} {{priority}} {{slo}}",
                        ),
                    ),
                    width=12,
                ),
                Panel(
                    "Burn rate, six hours",
                    "6 pages.",
                    (
                        Query(
                            f"weir:slo_error_ratio:6h{{{_RECORDED}}} {_BURN}",
                            "{{tenant}} {{priority}} {{slo}}",
                        ),
                    ),
                    width=12,
                ),
            ),
        ),
        Row(
            "What is missed",
            tuple(
                Panel(
                    title,
                    about,
                    (
                        Query(
                            f'weir:slo_error_ratio:5m{{{_RECORDED},slo="{slo}"}}',
                            "{{tenant}} {{priority}}",
                        ),
                    ),
                    "percentunit",
                    width=6,
                )
                for slo, title, about in (
                    ("ttft", "First tokens too late", "Share of the last five minutes' answers."),
                    ("tpot", "Tokens too slow", "Share of the last five minutes' answers."),
                    ("availability", "Failed", "Share of the last five minutes' requests."),
                    ("quality", "Student's answers", "Because of overload or failure."),
                )
            ),
        ),
        Row(
            "Latency",
            (
                Panel(
                    "Time to first token by class",
                    "All tenants together.",
                    quantiles("weir_time_to_first_token_seconds", "priority", _CLASS),
                    "s",
                ),
                Panel(
                    "Mean time to first token by tenant",
                    "Percentiles are not kept per tenant: they would cost each one twenty series.",
                    (
                        Query(
                            rate("weir_tenant_time_to_first_token_seconds_sum", "tenant", _TENANT)
                            + " / "
                            + rate(
                                "weir_tenant_time_to_first_token_seconds_count", "tenant", _TENANT
                            ),
                            "{{tenant}}",
                        ),
                    ),
                    "s",
                ),
                Panel(
                    "Requests by objective",
                    "How many requests each objective applies to.",
                    (Query(f"sum by (slo) (weir:slo_requests:rate5m{{{_RECORDED}}})", "{{slo}}"),),
                    "reqps",
                ),
            ),
        ),
    ),
    ("tenant", "priority"),
)
