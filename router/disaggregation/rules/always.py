"""The two fixed choices, which every other rule is measured against."""

from __future__ import annotations

from dataclasses import dataclass

from router.disaggregation.pace import Prices
from router.disaggregation.rule import register
from router.disaggregation.ways import Way, Ways


@dataclass(frozen=True, slots=True)
class AlwaysParams:
    """No parameters."""


@register("never", AlwaysParams)
class Never:
    """One replica does everything, the one that the routing policy chooses."""

    pairs_of_mixed = False

    def __init__(self, params: AlwaysParams) -> None:
        self._params = params

    def choose(self, ways: Ways) -> Way | None:
        return ways.whole


@register("always", AlwaysParams)
class Always:
    """Always a pair, as long as there are two replicas that can be one."""

    pairs_of_mixed = False

    def __init__(self, params: AlwaysParams) -> None:
        self._prices = Prices()

    def choose(self, ways: Ways) -> Way | None:
        return ways.pair(self._prices) if ways.can_pair else ways.whole
