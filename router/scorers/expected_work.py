"""Expected work: the core of weir's profile. Everything in the unit of one token to prefill.

What a new request waits for on a replica is, first of all, prefill: that of the requests ahead and
its own, minus what the cache spares it. Decoding there slows both by little per sequence. So

    cost = prefill outstanding + own uncached prompt
         + decode_weight · decode tokens outstanding
         + context_weight · context tokens in flight

and the least cost wins. Overlap enters only through the uncached prompt, which is the point: a
longest match alone sends everything to one replica as soon as all prompts share a block, while
here a block shared by all weighs its own prefill and nothing more. The form is that of NVIDIA
Dynamo's KV router (load minus overlap credit) and of Preble's "load cost" (Srivatsa et al. 2024).

A hot prefix replicates by itself: once the work queued on its holders exceeds the prefill that
holding saves, another replica costs less, takes the next request and becomes a holder.

Slow start: a replica that joined less than ``slow_start_s`` ago counts as slower than it is, as in
Envoy's load balancer; an empty cache and an empty queue would otherwise draw everything at once.
Its cost is divided by the part it has lived of that time, or of the oldest replica's life where
that is shorter (replicas that started together are equals), at least by a tenth.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import repeat
from operator import mul

from router.scoring import less_is_better, register_scorer
from router.types import Columns, RouteRequest, Snapshot

#: Replicas that joined within this time of each other started together.
_TOGETHER_S = 2.0


@dataclass(frozen=True, slots=True)
class ExpectedWorkParams:
    """Weights in prefill tokens per unit; ``overlap_weight`` 1 believes the index fully.

    ``scale_tokens``: the cost that scores ½.
    """

    overlap_weight: float = 1.0
    decode_weight: float = 0.25
    context_weight: float = 0.02
    slow_start_s: float = 20.0
    scale_tokens: float = 8192.0


@register_scorer("expected-work", ExpectedWorkParams)
class ExpectedWork:
    """See the module's docstring."""

    def __init__(self, params: ExpectedWorkParams) -> None:
        self._params = params

    def scores(self, request: RouteRequest, snapshot: Snapshot) -> Sequence[float]:
        return less_is_better(self.costs(request, snapshot), self._params.scale_tokens)

    def costs(self, request: RouteRequest, snapshot: Snapshot) -> Sequence[float]:
        """Tokens of prefill (or what equals them) before and for this request, per candidate."""
        p, columns = self._params, snapshot.columns
        fleet, prompt = columns.fleet, request.prompt_tokens
        d, c = p.decode_weight, p.context_weight
        saved: Iterable[float] = map(snapshot.overlap_blocks.get, fleet.ids, repeat(0))
        unit = p.overlap_weight * fleet.block_size
        if not unit:
            saved, unit = map(mul, saved, fleet.block_sizes), p.overlap_weight
        # The hottest line of a decision: one pass over all candidates, no calls in it.
        costs = [
            prompt + prefill + d * decode + c * context - unit * held
            for prefill, decode, context, held in zip(
                columns.prefill_tokens,
                columns.decode_tokens,
                columns.context_tokens,
                saved,
                strict=True,
            )
        ]
        if snapshot.now_s - fleet.newest_since_s < p.slow_start_s:
            costs = self._with_slow_start(costs, columns, snapshot.now_s)
        return costs

    def _with_slow_start(self, costs: list[float], columns: Columns, now_s: float) -> list[float]:
        """Young replicas count as slower. One that was always there (since 0) is not young."""
        infos = columns.fleet.infos
        oldest_s = now_s - min(info.since_s for info in infos)
        full_s = max(_TOGETHER_S, min(self._params.slow_start_s, oldest_s))
        slowed = list(costs)
        for i, info in enumerate(infos):
            lived_s = now_s - info.since_s + _TOGETHER_S
            if info.since_s > 0.0 and lived_s < full_s:
                slowed[i] = costs[i] / max(0.1, lived_s / full_s)
        return slowed
