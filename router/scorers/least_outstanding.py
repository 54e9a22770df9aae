"""Least outstanding tokens: the replica with the least prefill and decode work left."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from router.policy import register
from router.scoring import Scale, Weight, less_is_better, pick_least, register_scorer
from router.snapshot import Columns, Snapshot
from router.types import Decision, RouteRequest


@dataclass(frozen=True, slots=True)
class LeastOutstandingParams:
    """``decode_weight``: cost of a token still to decode relative to one still to prefill."""

    decode_weight: Weight = 1.0


@register("least-outstanding-tokens", LeastOutstandingParams)
class LeastOutstanding:
    """Ties are broken at random, so that idle replicas share the first requests."""

    def __init__(self, params: LeastOutstandingParams) -> None:
        self._decode_weight = params.decode_weight

    def choose(self, request: RouteRequest, snapshot: Snapshot, rng: random.Random) -> Decision:
        columns = snapshot.columns
        work = _outstanding(columns, self._decode_weight)
        chosen = columns.fleet.ids[pick_least(work, None, rng)]
        return Decision(chosen, "least-outstanding-tokens")


@dataclass(frozen=True, slots=True)
class LeastOutstandingScoreParams:
    """``scale_tokens``: the outstanding work that scores ½."""

    decode_weight: Weight = 1.0
    scale_tokens: Scale = 8192.0


@register_scorer("least-outstanding", LeastOutstandingScoreParams)
class LeastOutstandingScore:
    """The same as a scorer, for profiles."""

    def __init__(self, params: LeastOutstandingScoreParams) -> None:
        self._params = params

    def scores(self, request: RouteRequest, snapshot: Snapshot) -> Sequence[float]:
        work = _outstanding(snapshot.columns, self._params.decode_weight)
        return less_is_better(work, self._params.scale_tokens)


def _outstanding(columns: Columns, decode_weight: float) -> list[float]:
    return [
        prefill + decode_weight * decode
        for prefill, decode in zip(columns.prefill_tokens, columns.decode_tokens, strict=True)
    ]
