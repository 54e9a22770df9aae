"""What a decision saw and how it rated it, told afterwards, for traces and pages.

Policies are pure, so nothing has to be written down while they decide: the request and the snapshot
are kept, and the scores are computed again when somebody asks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from router.policy import Policy
from router.types import RouteRequest, Snapshot


@runtime_checkable
class Scoring(Protocol):
    """A policy that rates its candidates."""

    def scores(self, request: RouteRequest, snapshot: Snapshot) -> Sequence[float]:
        """One number per candidate, in their order; the highest is the best."""
        ...


class Candidate(NamedTuple):
    """One replica as a decision saw it. ``score``: 0 where the policy rates nothing.
    ``overlap_blocks``: of the prompt, that it held; ``requests`` and ``prefill_tokens``: in flight
    there."""

    replica_id: str
    score: float
    overlap_blocks: int
    requests: int
    prefill_tokens: int


def explain(policy: Policy, request: RouteRequest, snapshot: Snapshot) -> list[Candidate]:
    """The candidates, in their order."""
    columns, held = snapshot.columns, snapshot.overlap_blocks
    ids = columns.fleet.ids
    scores: Sequence[float] = [0.0] * len(ids)
    if isinstance(policy, Scoring):
        scores = policy.scores(request, snapshot)
    rows = zip(ids, scores, columns.requests, columns.prefill_tokens, strict=True)
    return [
        Candidate(rid, score, held.get(rid, 0), requests, prefill)
        for rid, score, requests, prefill in rows
    ]
