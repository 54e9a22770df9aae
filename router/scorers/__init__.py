"""Routing policies and scorers. Importing this package registers all of them."""

from router.scorers import (
    adapter_resident,
    decode_load,
    expected_work,
    kv_headroom,
    least_outstanding,
    power_of_two,
    predicted_latency,
    prefix_overlap,
    random_choice,
    round_robin,
    session_affinity,
    uncached_prefill,
    weighted,
)

__all__ = [
    "adapter_resident",
    "decode_load",
    "expected_work",
    "kv_headroom",
    "least_outstanding",
    "power_of_two",
    "predicted_latency",
    "prefix_overlap",
    "random_choice",
    "round_robin",
    "session_affinity",
    "uncached_prefill",
    "weighted",
]
