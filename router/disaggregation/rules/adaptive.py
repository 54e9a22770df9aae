"""weir's rule: whichever way costs least, to the request and to everybody else.

For every way it predicts TTFT and TPOT from what was learned of each replica (prefill queue, cached
prefix, transfer, steps), compares them with the request's own targets, and adds how much later the
others' tokens would be: see :mod:`router.disaggregation.ways`. No thresholds on lengths.

A replica that decodes little is a cheap place for a prompt, and one that computes few prompts a
cheap place for an answer; where all replicas are mixed and ``pairs_of_mixed`` is set, replicas
therefore specialise by themselves as far as the load asks for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from router.disaggregation.pace import Prices
from router.disaggregation.rule import register
from router.disaggregation.ways import Way, Ways

Weight = Annotated[float, Field(ge=0)]


@dataclass(frozen=True, slots=True)
class AdaptiveParams:
    """``answering_share``: a prefill replica takes whole requests when that costs least and either
    it gives no more than this part of its time to prompts, or the TPOT target is not shorter than a
    step full of prompt (0: never; vLLM's engines can decode whatever they are for).
    ``pairs_of_mixed``: every engine can hand its KV blocks over, whatever its role.
    ``power``, ``late``, ``others``, ``waiting``, ``work``, ``step_tokens``, ``gap_tokens``: see
    :class:`router.disaggregation.pace.Prices`."""

    answering_share: Weight = 0.5
    pairs_of_mixed: bool = False
    power: Annotated[float, Field(ge=1)] = 4.0
    late: Weight = 2.0
    others: Weight = 2.0
    waiting: Weight = 0.1
    work: Weight = 0.1
    step_tokens: Annotated[int, Field(ge=1)] = 2048
    gap_tokens: Weight = 0.1


@register("adaptive", AdaptiveParams)
class Adaptive:
    """See the module's docstring."""

    def __init__(self, params: AdaptiveParams) -> None:
        self.pairs_of_mixed = params.pairs_of_mixed
        self._answering_share = params.answering_share
        self._prices = Prices(
            params.power,
            params.late,
            params.others,
            params.waiting,
            params.work,
            params.step_tokens,
            params.gap_tokens,
        )

    def choose(self, ways: Ways) -> Way | None:
        return ways.best(self._prices, self._answering_share)
