"""Waste: computing again what another replica holds."""

from __future__ import annotations

import random

import router.scorers  # noqa: F401  (registers the policies)
from router.policy import build_policy
from router.types import ReplicaInfo, ReplicaLoad, ReplicaView, RouteRequest, Snapshot


def choose(**params: float) -> str:
    """1600 tokens, of which the busier of two replicas holds 800."""
    views = tuple(
        ReplicaView(ReplicaInfo(name), ReplicaLoad(1, prefill, 0, prefill))
        for name, prefill in (("holder", 3000), ("idle", 0))
    )
    request = RouteRequest("q", "m", "t", 1600, 10, 10, block_hashes=tuple(range(100)))
    policy = build_policy("weir", params)
    return policy.choose(request, Snapshot(1.0, views, {"holder": 50}), random.Random(0)).replica_id


def test_waste_keeps_a_prompt_with_its_holder() -> None:
    assert choose(waste=0.0) == "idle"
    assert choose(waste=30.0) == "holder"


def test_a_short_common_prefix_pulls_little() -> None:
    assert choose(waste=30.0, short_tokens=100_000.0) == "idle"


def test_a_prompt_that_is_long_anyway_goes_where_it_is_served_first() -> None:
    assert choose(waste=30.0, damping_tokens=100.0) == "idle"
