"""Power of two choices (Mitzenmacher 2001): draw two candidates, take the one with fewer requests
in flight. What Ray Serve does by default."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from router.policy import register
from router.snapshot import Snapshot
from router.types import Decision, RouteRequest


@dataclass(frozen=True, slots=True)
class PowerOfTwoParams:
    """``choices``: how many are drawn (fewer when there are fewer candidates)."""

    choices: Annotated[int, Field(ge=1)] = 2


@register("power-of-two", PowerOfTwoParams)
class PowerOfTwo:
    """Equals are broken by the order of the draw, which is random."""

    def __init__(self, params: PowerOfTwoParams) -> None:
        self._choices = params.choices

    def choose(self, request: RouteRequest, snapshot: Snapshot, rng: random.Random) -> Decision:
        columns = snapshot.columns
        count = len(columns.fleet.ids)
        drawn = rng.sample(range(count), min(self._choices, count))
        return Decision(columns.fleet.ids[min(drawn, key=columns.requests.__getitem__)], "p2c")
