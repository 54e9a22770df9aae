"""Uncached prefill work: prompt tokens to compute before the first token, queued ones included."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from router.scoring import Scale, less_is_better, register_scorer
from router.snapshot import Snapshot
from router.types import RouteRequest


@dataclass(frozen=True, slots=True)
class UncachedPrefillParams:
    """``scale_tokens``: the work that scores ½."""

    scale_tokens: Scale = 8192.0


@register_scorer("uncached-prefill", UncachedPrefillParams)
class UncachedPrefill:
    """Outstanding prefill on the replica plus what of the own prompt it does not hold."""

    def __init__(self, params: UncachedPrefillParams) -> None:
        self._scale = params.scale_tokens

    def scores(self, request: RouteRequest, snapshot: Snapshot) -> Sequence[float]:
        columns, held = snapshot.columns, snapshot.overlap_blocks
        fleet, prompt = columns.fleet, request.prompt_tokens
        work = [
            queued + max(0, prompt - size * held.get(rid, 0))
            for rid, size, queued in zip(
                fleet.ids, fleet.block_sizes, columns.prefill_tokens, strict=True
            )
        ]
        return less_is_better(work, self._scale)
