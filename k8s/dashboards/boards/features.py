"""Online features."""

from __future__ import annotations

from panels import Dashboard, Panel, Query, Row, quantiles, rate

_MODEL = 'model=~"$model"'
_TENANT = 'tenant=~"$tenant"'
_OF = f"{_MODEL},{_TENANT}"

FEATURES = Dashboard(
    "weir-features",
    "weir: features",
    "Online features for prompts: how long look-ups take, how old features are, who has none.",
    (
        Row(
            "Look-ups",
            (
                Panel(
                    "Look-ups by outcome",
                    "hit: all features. partial: some by default. off: nothing was looked up.",
                    (Query(rate("weir_feature_lookups_total", "outcome", _OF), "{{outcome}}"),),
                    "/s",
                    "stack",
                ),
                Panel(
                    "Time that requests waited",
                    "The budget bounds it.",
                    quantiles("weir_feature_wait_seconds", "model", _MODEL),
                    "s",
                ),
                Panel(
                    "Where answers came from",
                    "store, shared (a look-up under way), cache, none (the store is away).",
                    (Query(rate("weir_feature_reads_total", "source"), "{{source}}"),),
                    "/s",
                    "stack",
                ),
            ),
        ),
        Row(
            "Freshness",
            (
                Panel(
                    "Age of features",
                    "Of the oldest one in a prompt.",
                    quantiles("weir_feature_age_seconds", "model", _MODEL),
                    "s",
                ),
                Panel(
                    "Defaults",
                    "Features that were replaced by their defaults, by reason.",
                    (
                        Query(
                            rate("weir_feature_defaults_total", "service, reason"),
                            "{{service}} {{reason}}",
                        ),
                    ),
                    "/s",
                    "stack",
                ),
                Panel(
                    "Feature store",
                    "1: it answers.",
                    (Query("min by (gateway) (weir_feature_store_up)", "{{gateway}}"),),
                    most=1.05,
                ),
            ),
        ),
        Row(
            "Long tail",
            (
                Panel(
                    "Share of the long tail",
                    "Of requests whose entity was looked up.",
                    (
                        Query(
                            f"{rate('weir_long_tail_requests_total', '', _OF)} / "
                            + rate(
                                "weir_feature_lookups_total", "", _OF + ',outcome!~"off|invalid"'
                            ),
                            "long tail",
                        ),
                    ),
                    "percentunit",
                    width=12,
                    most=1.0,
                ),
                Panel(
                    "Long tail by tenant",
                    "Requests about entities without generated features.",
                    (Query(rate("weir_long_tail_requests_total", "tenant", _OF), "{{tenant}}"),),
                    "/s",
                    "stack",
                    12,
                ),
            ),
        ),
    ),
    ("model", "tenant"),
)
