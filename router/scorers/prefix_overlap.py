"""Prefix overlap: the part of the prompt that the replica holds already."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from router.scoring import register_scorer
from router.snapshot import Snapshot
from router.types import RouteRequest


@dataclass(frozen=True, slots=True)
class PrefixOverlapParams:
    """Nothing to tune."""


@register_scorer("prefix-overlap", PrefixOverlapParams)
class PrefixOverlap:
    """Held blocks over the prompt's full blocks (0 for prompts without one).

    As llm-d's prefix scorer. Alone it sends everything to one replica as soon as all prompts
    share a block: give a load scorer weight beside it.
    """

    def __init__(self, params: PrefixOverlapParams) -> None:
        pass

    def scores(self, request: RouteRequest, snapshot: Snapshot) -> Sequence[float]:
        ids, held = snapshot.columns.fleet.ids, snapshot.overlap_blocks
        blocks = len(request.block_hashes)
        if not blocks:
            return [0.0] * len(ids)
        return [min(1.0, held.get(rid, 0) / blocks) for rid in ids]
