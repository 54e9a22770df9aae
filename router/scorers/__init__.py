"""Routing policies and scorers. Importing this package registers all of them."""

from router.scorers import (
    decode_load,
    expected_work,
    kv_headroom,
    least_outstanding,
    power_of_two,
    predicted_latency,
    prefix_overlap,
    random_choice,
    round_robin,
    uncached_prefill,
    weighted,
)

__all__ = [
    "decode_load",
    "expected_work",
    "kv_headroom",
    "least_outstanding",
    "power_of_two",
    "predicted_latency",
    "prefix_overlap",
    "random_choice",
    "round_robin",
    "uncached_prefill",
    "weighted",
]
