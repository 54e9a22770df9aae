"""Predicted latency: time to the last token, by what was learned of each replica."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from router.scoring import Scale, Weight, less_is_better, register_scorer
from router.snapshot import Snapshot
from router.types import RouteRequest


@dataclass(frozen=True, slots=True)
class PredictedLatencyParams:
    """``ttft_weight``, ``tpot_weight``: of the time to the first token, and of the time for the
    expected rest (llm-d weighs them 0.8 to 0.2). ``scale_s``: the sum that scores ½."""

    ttft_weight: Weight = 0.8
    tpot_weight: Weight = 0.2
    scale_s: Scale = 1.0


@register_scorer("predicted-latency", PredictedLatencyParams)
class PredictedLatency:
    """Weighted sum of predicted TTFT and decode time. Alike for all while nothing is learned."""

    def __init__(self, params: PredictedLatencyParams) -> None:
        self._params = params

    def scores(self, request: RouteRequest, snapshot: Snapshot) -> Sequence[float]:
        p, columns, held = self._params, snapshot.columns, snapshot.overlap_blocks
        fleet, prompt = columns.fleet, request.prompt_tokens
        rest = p.tpot_weight * request.expected_output_tokens
        costs = []
        for i, fit in enumerate(columns.latency):
            uncached = max(0, prompt - fleet.block_sizes[i] * held.get(fleet.ids[i], 0))
            requests = columns.requests[i] + 1
            ttft_s = fit.ttft_s(columns.prefill_tokens[i] + uncached, requests)
            tpot_s = fit.tpot_s(requests, columns.context_tokens[i] + prompt)
            costs.append(p.ttft_weight * ttft_s + rest * tpot_s)
        return less_is_better(costs, p.scale_s)
