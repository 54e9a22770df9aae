"""Scorers and how they are put together: filter → score → pick (llm-d's inference scheduler).

A scorer sees all candidates at once and answers one number in [0, 1] each, the best being the
highest. It is pure: no clock, no randomness, no memory. :class:`WeightedPolicy` sums them by weight
among the candidates that the filter lets through, and breaks ties at random.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Protocol, TypeVar

from pydantic import Field

from router.snapshot import Columns, Snapshot
from router.types import Decision, RouteRequest
from weir.settings.parts import Registry


class Scorer(Protocol):
    """Rates the candidates of ``snapshot.columns``, in their order."""

    def scores(self, request: RouteRequest, snapshot: Snapshot) -> Sequence[float]:
        """One value in [0, 1] per candidate; higher is better."""
        ...


#: Of a parameter that is multiplied with a cost, and of one that a cost is divided by.
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Scale = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_F = TypeVar("_F", bound=Callable[..., Scorer])
SCORERS: Registry[Scorer] = Registry("scorer", "routing.params.scorers")


def register_scorer(name: str, params: type) -> Callable[[_F], _F]:
    """Class decorator: make a scorer known by its config name. A name is taken only once."""
    return SCORERS.register(name, params)


def scorer_names() -> tuple[str, ...]:
    """All registered names, sorted."""
    return SCORERS.names()


def build_scorer(name: str, params: Mapping[str, Any] | None = None) -> Scorer:
    """Build a registered scorer; an unknown name or parameter is a :class:`ConfigError`."""
    return SCORERS.build(name, params)


def less_is_better(costs: Sequence[float], scale: float) -> list[float]:
    """Costs (0 or more) as scores: 1 for none, ½ at ``scale``, towards 0 beyond. Unlike a
    min-max it keeps distances: two idle replicas do not look as far apart as idle and full."""
    return [scale / (scale + cost) for cost in costs]


def has_room(request: RouteRequest, columns: Columns, i: int) -> bool:
    """The filter: candidate ``i`` can begin the request now.

    It cannot with ``max_running`` requests of ours in flight, or if its KV cache (where its size
    is known) would not hold our requests' context, what they still have to generate, and this one.
    """
    fleet = columns.fleet
    if columns.requests[i] >= fleet.infos[i].max_running:
        return False
    need = request.prompt_tokens + request.expected_output_tokens
    taken = columns.context_tokens[i] + columns.decode_tokens[i]
    return not fleet.capacity_tokens[i] or taken + need <= fleet.capacity_tokens[i]


def choose_least(
    request: RouteRequest, columns: Columns, costs: Sequence[float], rng: random.Random
) -> int:
    """Index of the least cost among the candidates with room; equals are drawn by lot. When none
    has room all take part: queueing is then admission's affair."""
    chosen = pick_least(costs, None, rng)
    # Filtering first costs as much as scoring; the cheapest nearly always has room.
    if has_room(request, columns, chosen):
        return chosen
    room = [i for i in range(len(costs)) if has_room(request, columns, i)]
    return pick_least(costs, room, rng) if room else chosen


def pick_least(costs: Sequence[float], room: list[int] | None, rng: random.Random) -> int:
    """Index of the least cost among ``room`` (None: all); equals are drawn by lot."""
    if room is None:
        least = min(costs)
        if costs.count(least) == 1:
            return costs.index(least)
        ties = [i for i, cost in enumerate(costs) if cost == least]
    else:
        least = min(costs[i] for i in room)
        ties = [i for i in room if costs[i] == least]
    return ties[0] if len(ties) == 1 else rng.choice(ties)


class WeightedPolicy:
    """Filter, weighted sum of scores, best one. ``reason`` is what its decisions say."""

    def __init__(self, scorers: Sequence[tuple[float, Scorer]], reason: str) -> None:
        self._scorers = tuple(scorers)
        self._reason = reason

    def choose(self, request: RouteRequest, snapshot: Snapshot, rng: random.Random) -> Decision:
        columns = snapshot.columns
        costs = self.costs(request, snapshot)
        chosen = columns.fleet.ids[choose_least(request, columns, costs, rng)]
        return Decision(chosen, self._reason, snapshot.held.blocks(chosen))

    def costs(self, request: RouteRequest, snapshot: Snapshot) -> Sequence[float]:
        """The weighted sum per candidate, less being better."""
        total = [0.0] * len(snapshot.columns.fleet.ids)
        for weight, scorer in self._scorers:
            rated = scorer.scores(request, snapshot)
            total = [t - weight * s for t, s in zip(total, rated, strict=True)]
        return total
