"""Money: a cap per request. What a tenant has spent, its account knows."""

from __future__ import annotations

from weir.settings.fallback import CostSettings


class CostPolicy:
    """The request could cost more than the cap."""

    def __init__(self, settings: CostSettings) -> None:
        self._cap_usd = settings.price_cap_usd

    @property
    def has_cap(self) -> bool:
        """Whether the worst cost matters at all."""
        return self._cap_usd is not None

    def judge(self, worst_cost_usd: float) -> bool:
        """``worst_cost_usd``: the whole prompt uncached, and all output that it may have."""
        return self._cap_usd is not None and worst_cost_usd > self._cap_usd
