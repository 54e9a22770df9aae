"""What autoscaling expects, decides and gets."""

from __future__ import annotations

from panels import Dashboard, Panel, Query, Row, rate

_MODEL = 'model=~"$model"'
_FIXED = "no model here scales by itself"

AUTOSCALING = Dashboard(
    "weir-autoscaling",
    "weir: autoscaling",
    "Demand, the forecast of it, what was decided and what runs. `weir autoscale explain` has each "
    "decision in words.",
    (
        Row(
            "Decisions",
            (
                Panel(
                    "Replicas decided",
                    "By pool; a model without pools has one without a name.",
                    (
                        Query(
                            f"max by (model, pool) (weir_autoscaling_target_replicas{{{_MODEL}}})",
                            "{{model}} {{pool}}",
                        ),
                    ),
                    laptop=_FIXED,
                ),
                Panel(
                    "Replicas that run",
                    "By Ray Serve's state.",
                    (
                        Query(
                            f"sum by (model, pool, state) (weir_replica_states{{{_MODEL}}})",
                            "{{model}} {{pool}} {{state}}",
                        ),
                    ),
                    kind="stack",
                ),
                Panel(
                    "Changes",
                    "Decisions that changed a number, in ten minutes. Many: it swings.",
                    (
                        Query(
                            "sum by (model) "
                            f"(increase(weir_autoscaling_changes_total{{{_MODEL}}}[10m]))",
                            "{{model}}",
                        ),
                    ),
                    laptop=_FIXED,
                ),
            ),
        ),
        Row(
            "Forecast",
            (
                Panel(
                    "Forecast over real demand",
                    "1: as now. 0: nothing is foretold (the policy's default).",
                    (
                        Query(
                            "max by (model) (weir_autoscaling_figure"
                            f'{{{_MODEL},figure="foretold_over_now"}})',
                            "{{model}}",
                        ),
                    ),
                    laptop=_FIXED,
                ),
                Panel(
                    "Error of the forecast",
                    "Relative, of what was foretold before. Below 0: not known yet.",
                    (
                        Query(
                            "max by (model) (weir_autoscaling_figure"
                            f'{{{_MODEL},figure="forecast_error"}} >= -1)',
                            "{{model}}",
                        ),
                    ),
                    "percentunit",
                    laptop=_FIXED,
                    least=None,
                ),
                Panel(
                    "Tokens planned for",
                    "Per second: prompt tokens to compute, and tokens to generate.",
                    tuple(
                        Query(
                            "max by (model) (weir_autoscaling_figure"
                            f'{{{_MODEL},figure="{figure}_tokens_per_s"}})',
                            f"{figure} {{{{model}}}}",
                        )
                        for figure in ("computed", "output")
                    ),
                    "tokens/s",
                    laptop=_FIXED,
                ),
            ),
        ),
        Row(
            "Demand",
            (
                Panel(
                    "Arrivals",
                    "Requests per second as autoscaling counts them, by class.",
                    (
                        Query(
                            f"sum by (priority) (weir_autoscaling_arrivals_per_second{{{_MODEL}}})",
                            "{{priority}}",
                        ),
                    ),
                    "reqps",
                    "stack",
                    laptop=_FIXED,
                ),
                Panel(
                    "Tokens that are worked off",
                    "Per second, by all replicas.",
                    (
                        Query(
                            f"{rate('weir_prompt_tokens_total', 'model', _MODEL)} - "
                            f"{rate('weir_prompt_tokens_cached_total', 'model', _MODEL)}",
                            "computed {{model}}",
                        ),
                        Query(
                            rate("weir_output_tokens_total", "model", _MODEL),
                            "generated {{model}}",
                        ),
                    ),
                    "tokens/s",
                ),
                Panel(
                    "Cost of what was decided",
                    "Per hour.",
                    (
                        Query(
                            f"sum by (model) (weir_autoscaling_usd_per_hour{{{_MODEL}}})",
                            "{{model}}",
                        ),
                    ),
                    "currencyUSD",
                    laptop=_FIXED,
                ),
            ),
        ),
    ),
    ("model",),
)
