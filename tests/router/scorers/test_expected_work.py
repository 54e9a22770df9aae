"""Waste: computing again what another replica holds."""

from __future__ import annotations

import random

import router.scorers  # noqa: F401  (registers the policies)
from router.policy import build_policy
from router.types import ReplicaInfo, ReplicaLoad, ReplicaView, RouteRequest, Snapshot


def choose(prompt: int, held: int, busy: int, **params: float) -> str:
    """``held`` tokens of the prompt are on a replica with ``busy`` tokens before it; the other one
    holds nothing and has nothing to do."""
    views = tuple(
        ReplicaView(ReplicaInfo(name, attention_tokens=1e12), ReplicaLoad(1, prefill, 0, prefill))
        for name, prefill in (("holder", busy), ("idle", 0))
    )
    request = RouteRequest("q", "m", "t", prompt, 10, 10, block_hashes=tuple(range(prompt // 16)))
    policy = build_policy("weir", params)
    snapshot = Snapshot(1.0, views, {"holder": held // 16})
    return policy.choose(request, snapshot, random.Random(0)).replica_id


def test_waste_keeps_a_prompt_with_its_holder() -> None:
    assert choose(1600, 800, busy=3000) == "holder", "800 tokens spared are worth more than that"
    assert choose(1600, 800, busy=8000) == "idle", "a hot prefix replicates all the same"


def test_a_short_common_prefix_pulls_little() -> None:
    assert choose(1600, 160, busy=1000) == "idle"
    assert choose(1600, 800, busy=3000, short_tokens=100_000.0) == "idle"


def test_a_prompt_that_is_long_anyway_goes_where_it_is_served_first() -> None:
    assert choose(20_000, 8000, busy=80_000) == "holder"
    assert choose(1_000_000, 8000, busy=80_000) == "idle"
