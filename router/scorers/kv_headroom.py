"""KV headroom: the share of the replica's KV cache that stays free with this request on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from router.scoring import register_scorer
from router.snapshot import Snapshot
from router.types import RouteRequest


@dataclass(frozen=True, slots=True)
class KvHeadroomParams:
    """``stats_horizon_s``: a replica's own count of blocks in use weighs nothing at this age."""

    stats_horizon_s: Annotated[float, Field(gt=0)] = 2.0


@register_scorer("kv-headroom", KvHeadroomParams)
class KvHeadroom:
    """1 minus the used share; a replica whose size is unknown counts as half full.

    Used is what our own requests keep and will generate, or what the replica itself said,
    discounted by age, if that is more.
    """

    def __init__(self, params: KvHeadroomParams) -> None:
        self._horizon_s = params.stats_horizon_s

    def scores(self, request: RouteRequest, snapshot: Snapshot) -> Sequence[float]:
        columns, now_s = snapshot.columns, snapshot.now_s
        need = request.prompt_tokens + request.expected_output_tokens
        scores = []
        for i, capacity in enumerate(columns.fleet.capacity_tokens):
            if not capacity:
                scores.append(0.5)
                continue
            stats = columns.stats[i]
            fresh = min(1.0, max(0.0, 1.0 - (now_s - stats.at_s) / self._horizon_s))
            own = columns.context_tokens[i] + columns.decode_tokens[i]
            said = fresh * stats.kv_blocks_used * columns.fleet.block_sizes[i]
            scores.append(min(1.0, max(0.0, 1.0 - (max(own, said) + need) / capacity)))
        return scores
