"""Random: any candidate, all alike."""

from __future__ import annotations

import random
from dataclasses import dataclass

from router.policy import register
from router.snapshot import Snapshot
from router.types import Decision, RouteRequest


@dataclass(frozen=True, slots=True)
class RandomParams:
    """Nothing to tune."""


@register("random", RandomParams)
class RandomChoice:
    """A uniform draw."""

    def __init__(self, params: RandomParams) -> None:
        pass

    def choose(self, request: RouteRequest, snapshot: Snapshot, rng: random.Random) -> Decision:
        return Decision(rng.choice(snapshot.columns.fleet.ids), "random")
