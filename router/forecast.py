"""What a request would take if it ran now, for admission: by the prefix index and the learned
model of the fleet."""

from __future__ import annotations

from router.types import LatencyFit, RouteRequest
from router.view import View


class Forecast:
    """Optimistic on purpose: the best holder, with nothing else to prefill there. Only what is late
    even so is late. While nothing is learned (``fit`` of the fleet) every time is 0."""

    __slots__ = ("_fit", "_request", "_view", "uncached_tokens")

    def __init__(
        self, request: RouteRequest, view: View, fit: LatencyFit, cached_tokens: int
    ) -> None:
        self._request = request
        self._view = view
        self._fit = fit
        self.uncached_tokens = max(1, request.prompt_tokens - cached_tokens)

    def first_token_s(self) -> float:
        """Seconds until the first token."""
        return self._fit.ttft_s(self.uncached_tokens, 1)

    def last_token_s(self) -> float:
        """Seconds until the last token, on the least busy replica."""
        requests, context = self._view.least_busy()
        pace_s = self._fit.tpot_s(requests + 1, context + self._request.prompt_tokens)
        return self.first_token_s() + pace_s * self._request.expected_output_tokens
