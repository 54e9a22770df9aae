"""llm-d's rule: disaggregate from so many uncached prompt tokens on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from router.disaggregation.pace import Prices
from router.disaggregation.rule import register
from router.disaggregation.ways import Way, Ways


@dataclass(frozen=True, slots=True)
class LlmDParams:
    """``uncached_tokens``: what llm-d's guides set is 16."""

    uncached_tokens: Annotated[int, Field(ge=0)] = 16


@register("llm-d", LlmDParams)
class LlmD:
    """Uncached is what the best holder among the decode replicas does not have. The comparison
    inside weir: queue, pair and routing are weir's, the rule is llm-d's."""

    pairs_of_mixed = False

    def __init__(self, params: LlmDParams) -> None:
        self._least = params.uncached_tokens
        self._prices = Prices()

    def choose(self, ways: Ways) -> Way | None:
        uncached = ways.request.prompt_tokens - ways.most_cached_tokens(ways.answerers)
        if uncached >= self._least and ways.can_pair:
            return ways.pair(self._prices)
        return ways.whole
