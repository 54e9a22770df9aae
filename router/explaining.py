"""What a decision saw and how it compared it, told afterwards, for traces and pages.

Policies are pure, so nothing has to be written down while they decide: the request and the snapshot
are kept, and the costs are computed again when somebody asks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from router.policy import Policy
from router.snapshot import Snapshot
from router.types import RouteRequest


@runtime_checkable
class Comparing(Protocol):
    """A policy that compares its candidates."""

    def costs(self, request: RouteRequest, snapshot: Snapshot) -> Sequence[float]:
        """One number per candidate, in their order; the least that has room wins."""
        ...


class Candidate(NamedTuple):
    """One replica as a decision saw it. ``cost``: 0 where the policy compares nothing.
    ``overlap_blocks``: of the prompt, that it held; the others: in flight there."""

    replica_id: str
    cost: float
    overlap_blocks: int
    requests: int
    prefill_tokens: int
    decode_tokens: int


def explain(policy: Policy, request: RouteRequest, snapshot: Snapshot) -> list[Candidate]:
    """The candidates, in their order."""
    columns, held = snapshot.columns, snapshot.overlap_blocks
    ids = columns.fleet.ids
    costs: Sequence[float] = [0.0] * len(ids)
    if isinstance(policy, Comparing):
        costs = policy.costs(request, snapshot)
    columns_of = (columns.requests, columns.prefill_tokens, columns.decode_tokens)
    return [
        Candidate(rid, cost, held.get(rid, 0), *outstanding)
        for rid, cost, *outstanding in zip(ids, costs, *columns_of, strict=True)
    ]
