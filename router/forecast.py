"""What a request would take if it ran now, for admission: by the prefix index and the learned
model of the fleet."""

from __future__ import annotations

from router.admission.forecast import Foreseen
from router.types import LatencyFit, RouteRequest
from router.view import View


def foresee(request: RouteRequest, view: View, fit: LatencyFit) -> Foreseen:
    """Optimistic on purpose: the best holder, with nothing else to prefill there. Only what is late
    even so is late. While nothing is learned (``fit`` of the fleet) every time is 0."""
    uncached = max(1, request.prompt_tokens - view.most_cached_tokens(request))
    first_s = fit.ttft_s(uncached, 1)
    requests, context = view.least_busy()
    pace_s = fit.tpot_s(requests + 1, context + request.prompt_tokens)
    return Foreseen(uncached, first_s, first_s + pace_s * request.expected_output_tokens)
