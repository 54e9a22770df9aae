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

from router.disaggregation.rule import register
from router.disaggregation.ways import Prices, Way, Ways
from weir.errors import ConfigError


@dataclass(frozen=True, slots=True)
class AdaptiveParams:
    """``pairs_of_mixed``: every engine can hand its KV blocks over, whatever its role.
    ``power``, ``work``, ``others``: see :class:`router.disaggregation.ways.Prices`."""

    pairs_of_mixed: bool = False
    power: float = 4.0
    work: float = 0.1
    others: float = 1.0

    def __post_init__(self) -> None:
        path = "routing.disaggregation.params"
        if not self.power >= 1.0:
            raise ConfigError(f"{path}.power: expected a number of at least 1")
        if not self.work >= 0.0 or not self.others >= 0.0:
            raise ConfigError(f"{path}: expected work and others of at least 0")


@register("adaptive", AdaptiveParams)
class Adaptive:
    """See the module's docstring."""

    def __init__(self, params: AdaptiveParams) -> None:
        self.pairs_of_mixed = params.pairs_of_mixed
        self._prices = Prices(params.power, params.work, params.others)

    def choose(self, ways: Ways) -> Way | None:
        return ways.best(self._prices)
