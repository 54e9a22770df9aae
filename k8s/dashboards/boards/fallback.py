"""The students."""

from __future__ import annotations

from panels import Dashboard, Panel, Query, Row, rate

_MODEL = 'model=~"$model"'
_TENANT = 'tenant=~"$tenant"'
_OF = f"{_MODEL},{_TENANT}"
_NO_CASCADE = "the laptop's model has no cascade"

FALLBACK = Dashboard(
    "weir-fallback",
    "weir: fallback",
    "What the students answer, why, and how good that is.",
    (
        Row(
            "Spills",
            (
                Panel(
                    "Spills by reason",
                    "Answers of the student.",
                    (Query(rate("weir_spills_total", "reason", _OF), "{{reason}}"),),
                    "/s",
                    "stack",
                ),
                Panel(
                    "Share of the student",
                    "Of the model's answers.",
                    (
                        Query(
                            f"{rate('weir_spills_total', 'model', _OF)} / "
                            f"{rate('weir_requests_total', 'model', _OF)}",
                            "{{model}}",
                        ),
                    ),
                    "percentunit",
                    most=1.0,
                ),
                Panel(
                    "Spills by tenant",
                    "Answers of the student.",
                    (Query(rate("weir_spills_total", "tenant", _OF), "{{tenant}}"),),
                    "/s",
                    "stack",
                ),
            ),
        ),
        Row(
            "Quality",
            (
                Panel(
                    "Answered by the model itself",
                    "Share of requests; spills that were asked for count as good.",
                    (
                        Query(
                            rate(
                                "weir_slo_requests_total",
                                "model",
                                _OF + ',slo="quality",verdict="met"',
                            )
                            + " / "
                            + rate("weir_slo_requests_total", "model", _OF + ',slo="quality"'),
                            "{{model}}",
                        ),
                    ),
                    "percentunit",
                    most=1.0,
                ),
                Panel(
                    "Cascade",
                    "Answers that the student began: kept, or given to the model.",
                    (Query(rate("weir_cascade_answers_total", "verdict", _MODEL), "{{verdict}}"),),
                    "/s",
                    "stack",
                    laptop=_NO_CASCADE,
                ),
                Panel(
                    "Time to first token, model and student",
                    "95th percentile.",
                    (
                        Query(
                            "histogram_quantile(0.95, sum by (le, model) (rate("
                            f"weir_time_to_first_token_seconds_bucket{{{_MODEL}}}"
                            "[$__rate_interval])))",
                            "{{model}}",
                        ),
                    ),
                    "s",
                ),
            ),
        ),
        Row(
            "Failures",
            (
                Panel(
                    "Circuit",
                    "0: closed. 1: it tries again. 2: open, the student answers.",
                    (Query(f"max by (model) (weir_circuit_state{{{_MODEL}}})", "{{model}}"),),
                    width=12,
                    most=2.1,
                ),
                Panel(
                    "Spills that failed",
                    "The student could not take them.",
                    (
                        Query(
                            rate("weir_spill_failures_total", "model, reason", _MODEL),
                            "{{model}} {{reason}}",
                        ),
                    ),
                    "/s",
                    width=12,
                    laptop="the student takes everything",
                ),
            ),
        ),
    ),
    ("model", "tenant"),
)
