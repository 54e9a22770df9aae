"""Least outstanding tokens: the replica with the least prefill and decode work left."""

from __future__ import annotations

import random
from dataclasses import dataclass

from router.policy import register
from router.types import Decision, ReplicaView, RouteRequest, Snapshot


@dataclass(frozen=True, slots=True)
class LeastOutstandingParams:
    """``decode_weight``: cost of a token still to decode relative to one still to prefill."""

    decode_weight: float = 1.0


@register("least-outstanding-tokens", LeastOutstandingParams)
class LeastOutstanding:
    """Ties are broken at random, so that idle replicas share the first requests."""

    def __init__(self, params: LeastOutstandingParams) -> None:
        self._decode_weight = params.decode_weight

    def choose(self, request: RouteRequest, snapshot: Snapshot, rng: random.Random) -> Decision:
        least = min(map(self._work, snapshot.replicas))
        ties = [view for view in snapshot.replicas if self._work(view) == least]
        chosen = ties[0] if len(ties) == 1 else rng.choice(ties)
        return Decision(chosen.replica_id, "least-outstanding-tokens")

    def _work(self, view: ReplicaView) -> float:
        return view.load.prefill_tokens + self._decode_weight * view.load.decode_tokens
