"""Round-robin: each replica in turn, whatever its load. The baseline to beat."""

from __future__ import annotations

import random
from dataclasses import dataclass

from router.policy import register
from router.snapshot import Snapshot
from router.types import Decision, RouteRequest


@dataclass(frozen=True, slots=True)
class RoundRobinParams:
    """Round-robin has nothing to tune."""


@register("round-robin", RoundRobinParams)
class RoundRobin:
    """Cycles by replica id, so that a changing set keeps its order."""

    def __init__(self, params: RoundRobinParams) -> None:
        self._last = ""

    def choose(self, request: RouteRequest, snapshot: Snapshot, rng: random.Random) -> Decision:
        ids = sorted(snapshot.columns.fleet.ids)
        following = next((i for i in ids if i > self._last), ids[0])
        self._last = following
        return Decision(following, "round-robin")
