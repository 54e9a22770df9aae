"""Session affinity: the same replica for the same session, without remembering any."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import xxhash

from router.scoring import register_scorer
from router.types import RouteRequest, Snapshot


@dataclass(frozen=True, slots=True)
class SessionAffinityParams:
    """Nothing to tune."""


@register_scorer("session-affinity", SessionAffinityParams)
class SessionAffinity:
    """Rendezvous hashing (Thaler and Ravishankar 1998): 1 for the replica whose hash with the
    session is highest, 0 for the others; when it leaves, only its own sessions move. All 0
    for requests without a session."""

    def __init__(self, params: SessionAffinityParams) -> None:
        pass

    def scores(self, request: RouteRequest, snapshot: Snapshot) -> Sequence[float]:
        ids = snapshot.columns.fleet.ids
        scores = [0.0] * len(ids)
        if request.session is not None:
            seed = xxhash.xxh3_64_intdigest(request.session.encode())
            draws = [xxhash.xxh3_64_intdigest(rid.encode(), seed) for rid in ids]
            scores[draws.index(max(draws))] = 1.0
        return scores
