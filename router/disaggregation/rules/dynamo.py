"""Dynamo's conditional disaggregation: long prompts go to the prefill replicas, if those have room.

By its documentation (1.6) a prompt stays on the decode replica when fewer than 2,048 of its tokens
are uncached there and these are less than 0.7 of it (``isl_bounding``). Its first rule had 1,000
tokens and a prefill queue of at most 2 requests per prefill replica, beyond which prompts stay.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from router.disaggregation.pace import Prices
from router.disaggregation.rule import register
from router.disaggregation.ways import Way, Ways


@dataclass(frozen=True, slots=True)
class DynamoParams:
    """``uncached_tokens`` and ``uncached_ratio``: a prompt with less of both stays.
    ``queued_requests``: with that many per prefill replica every prompt stays (None: never)."""

    uncached_tokens: Annotated[int, Field(ge=0)] = 2048
    uncached_ratio: Annotated[float, Field(ge=0)] = 0.7
    queued_requests: Annotated[float, Field(ge=0)] | None = None


@register("dynamo", DynamoParams)
class Dynamo:
    """The comparison inside weir: queue, pair and routing are weir's, the rule is Dynamo's."""

    pairs_of_mixed = False

    def __init__(self, params: DynamoParams) -> None:
        self._params = params
        self._prices = Prices()

    def choose(self, ways: Ways) -> Way | None:
        if not ways.can_pair or self._stays(ways):
            return ways.whole
        return ways.pair(self._prices)

    def _stays(self, ways: Ways) -> bool:
        p, prompt = self._params, ways.request.prompt_tokens
        uncached = prompt - ways.most_cached_tokens(ways.answerers)
        if uncached < p.uncached_tokens and uncached < p.uncached_ratio * prompt:
            return True
        if p.queued_requests is None:
            return False
        requests = ways.columns.requests
        queued = sum(requests[slot] for slot in ways.prefillers) / len(ways.prefillers)
        return queued >= p.queued_requests
