"""What arrives and what waits, by priority class: counted where requests come in, so that a model
whose replicas are full does not look like one that is little asked for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

from router.admission.waiting import Item, State
from router.types import RouteRequest

#: Waiting requests are looked at one by one up to so many; more count like these.
_LOOKED_AT = 4096


@dataclass(slots=True)
class Arrived:
    """Of one class, since the beginning. ``computed_tokens``: prompt tokens that no replica had
    cached; ``output_tokens``: as they are expected."""

    requests: int = 0
    prompt_tokens: int = 0
    computed_tokens: int = 0
    output_tokens: int = 0


@dataclass(slots=True)
class Waits:
    """Of one class, now. ``since_s``: when the one that waits longest came."""

    requests: int = 0
    computed_tokens: float = 0.0
    output_tokens: float = 0.0
    since_s: float = float("inf")


class Arrivals:
    """Counts what is offered to one model, whatever becomes of it."""

    def __init__(self) -> None:
        self.by_class: dict[str, Arrived] = {}

    def add(self, request: RouteRequest, cached_tokens: int) -> None:
        """A request came; its best holder has ``cached_tokens`` of its prompt."""
        seen = self.by_class.get(request.priority_class)
        if seen is None:
            seen = self.by_class[request.priority_class] = Arrived()
        prompt = request.prompt_tokens
        seen.requests += 1
        seen.prompt_tokens += prompt
        seen.computed_tokens += max(1, prompt - cached_tokens)
        seen.output_tokens += request.expected_output_tokens


def waiting_work(items: Iterable[Item], waiting: int) -> dict[str, Waits]:
    """What waits, by class, of ``items`` of which so many are ``waiting``."""
    found: dict[str, Waits] = {}
    looked = 0
    for item in islice((i for i in items if i.state is State.WAITING), _LOOKED_AT):
        looked += 1
        request = item.request
        waits = found.setdefault(request.priority_class, Waits())
        waits.requests += 1
        waits.computed_tokens += item.uncached_tokens
        waits.output_tokens += request.expected_output_tokens
        waits.since_s = min(waits.since_s, item.offered_s)
    if looked < waiting:
        for waits in found.values():
            waits.requests = round(waits.requests * waiting / looked)
            waits.computed_tokens *= waiting / looked
            waits.output_tokens *= waiting / looked
    return found
