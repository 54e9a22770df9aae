"""Replicas by role, transfers, tiers, adapters."""

from __future__ import annotations

from panels import Dashboard, Panel, Query, Row, quantiles, rate

_MODEL = 'model=~"$model"'
_NO_POOLS = "the laptop's models have no pools of prefill and decode replicas"
_NO_TIERS = "the laptop's models have no KV tiers"

POOLS = Dashboard(
    "weir-pools",
    "weir: pools and transfers",
    "Replicas by role, KV that goes from one to another, and tiers outside the device.",
    (
        Row(
            "Replicas",
            (
                Panel(
                    "Replicas",
                    "That can be routed to.",
                    (Query(f"sum by (model) (weir_replicas{{{_MODEL}}})", "{{model}}"),),
                    kind="stack",
                ),
                Panel(
                    "Replicas by role",
                    "What they do now.",
                    (
                        Query(
                            f"sum by (model, pool, role) (weir_replicas_by_role{{{_MODEL}}})",
                            "{{model}} {{pool}} {{role}}",
                        ),
                    ),
                    kind="stack",
                    laptop=_NO_POOLS,
                ),
                Panel(
                    "Changes of role",
                    "By the new role.",
                    (
                        Query(
                            f"sum by (model, role) (weir_replica_role_changes{{{_MODEL}}})",
                            "{{model}} {{role}}",
                        ),
                    ),
                    laptop=_NO_POOLS,
                ),
            ),
        ),
        Row(
            "Transfers",
            (
                Panel(
                    "Hand-offs by outcome",
                    "Prompts that one replica computed and another answered.",
                    (Query(rate("weir_handoffs_total", "outcome", _MODEL), "{{outcome}}"),),
                    "/s",
                    "stack",
                    laptop=_NO_POOLS,
                ),
                Panel(
                    "Time of a hand-off",
                    "From asking for the blocks to the first output.",
                    quantiles("weir_handoff_seconds", "model", _MODEL),
                    "s",
                    laptop=_NO_POOLS,
                ),
                Panel(
                    "Tokens computed again",
                    "Brought by streams that moved.",
                    (Query(rate("weir_recomputed_tokens_total", "model", _MODEL), "{{model}}"),),
                    "tokens/s",
                    laptop="no replica fails or drains",
                ),
            ),
        ),
        Row(
            "Tiers and adapters",
            (
                Panel(
                    "KV tiers in use",
                    "Share of what each may take.",
                    (
                        Query(
                            "sum by (replica, tier) (weir_kv_tier_bytes) / "
                            "sum by (replica, tier) (weir_kv_tier_limit_bytes)",
                            "{{replica}} {{tier}}",
                        ),
                    ),
                    "percentunit",
                    laptop=_NO_TIERS,
                ),
                Panel(
                    "Blocks loaded from tiers",
                    "Each one is a block that was not computed again.",
                    (Query(rate("weir_kv_tier_loaded_blocks_total", "tier"), "{{tier}}"),),
                    "blocks/s",
                    laptop=_NO_TIERS,
                ),
                Panel(
                    "Adapters loaded",
                    "Into replicas' slots, since their start.",
                    (Query(f"max by (replica) (weir_adapter_loads{{{_MODEL}}})", "{{replica}}"),),
                    laptop="the laptop's models have no adapters",
                ),
            ),
        ),
    ),
    ("model",),
)
