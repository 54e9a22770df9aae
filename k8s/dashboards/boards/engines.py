"""vLLM's own figures."""

from __future__ import annotations

from panels import Dashboard, Panel, Query, Row, quantiles, rate

_MODEL = 'model=~"$model"'

ENGINES = Dashboard(
    "weir-engines",
    "weir: engines",
    "vLLM's own figures, by replica.",
    (
        Row(
            "KV cache",
            (
                Panel(
                    "KV cache in use",
                    "Full: requests wait for blocks, or are thrown out.",
                    (Query("max by (replica) (vllm:kv_cache_usage_perc)", "{{replica}}"),),
                    "percentunit",
                    most=1.0,
                ),
                Panel(
                    "Hit rate of the prefix cache",
                    "Share of prompt tokens that were found on the device.",
                    (
                        Query(
                            f"{rate('vllm:prefix_cache_hits_total', 'replica')} / "
                            f"{rate('vllm:prefix_cache_queries_total', 'replica')}",
                            "{{replica}}",
                        ),
                    ),
                    "percentunit",
                    most=1.0,
                ),
                Panel(
                    "Preemptions",
                    "Requests thrown out of the cache, to be computed again.",
                    (Query(rate("vllm:num_preemptions_total", "replica"), "{{replica}}"),),
                    "/s",
                ),
            ),
        ),
        Row(
            "Batch",
            (
                Panel(
                    "Running",
                    "Sequences in the batch.",
                    (Query("sum by (replica) (vllm:num_requests_running)", "{{replica}}"),),
                ),
                Panel(
                    "Waiting in the engine",
                    "Should be few: the gateways hold the queue.",
                    (Query("sum by (replica) (vllm:num_requests_waiting)", "{{replica}}"),),
                ),
                Panel(
                    "Tokens per step",
                    "Mean size of an engine step.",
                    (
                        Query(
                            f"{rate('vllm:iteration_tokens_total_sum', 'replica')} / "
                            f"{rate('vllm:iteration_tokens_total_count', 'replica')}",
                            "{{replica}}",
                        ),
                    ),
                ),
                Panel(
                    "Prompt tokens",
                    "Per second, cached ones included.",
                    (Query(rate("vllm:prompt_tokens_total", "replica"), "{{replica}}"),),
                    "tokens/s",
                    "stack",
                ),
                Panel(
                    "Generated tokens",
                    "Per second.",
                    (Query(rate("vllm:generation_tokens_total", "replica"), "{{replica}}"),),
                    "tokens/s",
                    "stack",
                ),
                Panel(
                    "Time between tokens",
                    "As the engine sees it.",
                    quantiles("vllm:inter_token_latency_seconds", "replica"),
                    "s",
                ),
            ),
        ),
        Row(
            "Use of the device",
            (
                Panel(
                    "MFU",
                    "Share of the device's peak FLOPs.",
                    (
                        Query(
                            f"max by (replica) (weir_replica_mfu_ratio{{{_MODEL}}})", "{{replica}}"
                        ),
                    ),
                    "percentunit",
                ),
                Panel(
                    "MBU",
                    "Share of the device's peak memory bandwidth.",
                    (
                        Query(
                            f"max by (replica) (weir_replica_mbu_ratio{{{_MODEL}}})", "{{replica}}"
                        ),
                    ),
                    "percentunit",
                ),
                Panel(
                    "Engines that answer",
                    "1: the replica told its metrics.",
                    (Query(f"max by (replica) (weir_engine_up{{{_MODEL}}})", "{{replica}}"),),
                    most=1.05,
                ),
            ),
        ),
    ),
    ("model",),
)
