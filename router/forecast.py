"""What a request would take if it ran now, for admission: by the prefix index and the learned
model of the fleet."""

from __future__ import annotations

import math

from router.admission.forecast import Foreseen
from router.returning import LossMeter, ReturnMeter
from router.router import Router
from router.types import RouteRequest

#: Caches are spared only where at least this part of the prompts' tokens returns.
WORTH_KEEPING = 0.5


class RouterForecast:
    """Optimistic on purpose: the best holder, with nothing else to prefill there. Only what is
    late even so is called late. While nothing is learned every time is 0.
    """

    def __init__(self, router: Router) -> None:
        self._router = router
        self._returning = ReturnMeter()
        self._losing = LossMeter()

    def foresee(self, request: RouteRequest) -> Foreseen:
        """O(runs of the prompt + replicas)."""
        router = self._router
        prompt, cached = request.prompt_tokens, router.most_cached_tokens(request)
        if request.block_hashes:
            returned = self._returning.observe(request.block_hashes, prompt)
            self._losing.observe(prompt, returned, cached)
        uncached = max(1, prompt - cached)
        fit = router.latency.fit()
        first_s = fit.ttft_s(uncached, 1)
        requests, context = router.least_busy()
        pace_s = fit.tpot_s(requests + 1, context + request.prompt_tokens)
        return Foreseen(uncached, first_s, first_s + pace_s * request.expected_output_tokens)

    def unused_s(self, replica_id: str) -> float:
        """Seconds since what the replica's cache would lose next was used; infinite while it
        has space, or while so little of what comes came before that nothing is worth keeping."""
        if self._returning.share < WORTH_KEEPING:
            return math.inf
        return self._router.unused_s(replica_id)

    @property
    def thrashing(self) -> bool:
        """Whether prefixes that come back are lost in between (:class:`LossMeter`)."""
        return self._losing.thrashing
