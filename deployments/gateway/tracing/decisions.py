"""A routing decision, told: the candidates with their costs, as they were when it was made."""

from __future__ import annotations

import heapq
from operator import attrgetter

from deployments.gateway.tracing.spans import Value
from router.ledger import Reservation
from router.types import prefill_replica_of

#: Candidates that are told, best first.
_MOST_CANDIDATES = 4


def decision_attributes(reservation: Reservation) -> dict[str, Value]:
    """Why the request got its replica. The costs are computed now, by the policy, from what it saw
    then: policies are pure."""
    decision = reservation.decision
    told: dict[str, Value] = {
        "weir.decision.reason": decision.reason,
        "weir.decision.replica": decision.replica_id,
        "weir.decision.overlap_blocks": decision.overlap_blocks,
    }
    prefill_id = prefill_replica_of(decision)
    if prefill_id is not None:
        told["weir.decision.prefill_replica"] = prefill_id
    if reservation.explain is None:
        return told
    candidates = reservation.explain()
    told["weir.decision.candidates"] = len(candidates)
    best = heapq.nsmallest(_MOST_CANDIDATES, candidates, key=attrgetter("cost"))
    told["weir.decision.best"] = [
        f"{each.replica_id} {each.cost:.1f} ({each.overlap_blocks} blocks cached, "
        f"{each.requests} requests, {each.prefill_tokens} tokens to prefill)"
        for each in best
    ]
    return told
