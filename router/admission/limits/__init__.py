"""Admission's limits. Importing this package registers all of them."""

from router.admission.limits import (
    head_room,
    heavy_tenant,
    kv,
    places,
    prefill,
    working_set,
)

__all__ = ["head_room", "heavy_tenant", "kv", "places", "prefill", "working_set"]
