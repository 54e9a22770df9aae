"""A routing decision, told: the candidates with their costs, as they were when it was made."""

from __future__ import annotations

from deployments.gateway.tracing.spans import Value
from router.ledger import Reservation
from router.types import prefill_replica_of

#: Candidates that are told, best first.
_MOST_CANDIDATES = 8


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
    best = sorted(candidates, key=lambda each: each.cost)[:_MOST_CANDIDATES]
    told["weir.decision.replicas"] = [each.replica_id for each in best]
    told["weir.decision.costs"] = [round(each.cost, 1) for each in best]
    told["weir.decision.cached_blocks"] = [each.overlap_blocks for each in best]
    told["weir.decision.requests"] = [each.requests for each in best]
    told["weir.decision.prefill_tokens"] = [each.prefill_tokens for each in best]
    return told
