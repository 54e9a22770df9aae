"""The in-flight ledger: what was dispatched where and has not finished.

Every reservation is freed exactly once, whichever of finish, error, cancel or replica death
comes first; later calls change nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from router.types import Decision, ReplicaLoad, RouteRequest


@dataclass(slots=True)
class _Totals:
    requests: int = 0
    prefill_tokens: int = 0
    decode_tokens: int = 0


class Reservation:
    """One request's share of a replica's load. Owned by the request that made it."""

    __slots__ = ("_decode_left", "_ledger", "_prefill_left", "_released", "decision", "request")

    def __init__(
        self, ledger: Ledger, request: RouteRequest, decision: Decision, prefill_tokens: int
    ) -> None:
        self._ledger = ledger
        self.request = request
        self.decision = decision
        self._prefill_left = prefill_tokens
        self._decode_left = request.expected_output_tokens
        self._released = False

    @property
    def replica_id(self) -> str:
        return self.decision.replica_id

    @property
    def released(self) -> bool:
        return self._released

    def progress(self, generated_tokens: int) -> None:
        """``generated_tokens`` more tokens arrived: the prefill is done, less decode is left.

        A request that outlives its expected length keeps one decode token outstanding.
        """
        if self._released:
            return
        prefill, self._prefill_left = self._prefill_left, 0
        left = max(1, self._decode_left - generated_tokens)
        decode, self._decode_left = self._decode_left - left, left
        self._ledger.change(self.replica_id, 0, -prefill, -decode)

    def release(self) -> bool:
        """Free everything; True for the call that did it, False ever after."""
        if self._released:
            return False
        self._released = True
        self._ledger.change(self.replica_id, -1, -self._prefill_left, -self._decode_left)
        return True


class Ledger:
    """Outstanding work per replica, as dispatched by this process."""

    def __init__(self) -> None:
        self._by_replica: dict[str, _Totals] = {}

    def reserve(
        self, request: RouteRequest, decision: Decision, cached_tokens: int = 0
    ) -> Reservation:
        """Count ``request`` on the decided replica; ``cached_tokens`` need no prefill."""
        prefill = max(0, request.prompt_tokens - cached_tokens)
        self._by_replica.setdefault(decision.replica_id, _Totals())
        self.change(decision.replica_id, 1, prefill, request.expected_output_tokens)
        return Reservation(self, request, decision, prefill)

    def load(self, replica_id: str) -> ReplicaLoad:
        """Totals of one replica (zeros when nothing was ever dispatched to it)."""
        totals = self._by_replica.get(replica_id)
        if totals is None:
            return ReplicaLoad()
        return ReplicaLoad(totals.requests, totals.prefill_tokens, totals.decode_tokens)

    def forget(self, replica_id: str) -> None:
        """The replica is gone: its totals go with it, late releases change nothing."""
        self._by_replica.pop(replica_id, None)

    def change(self, replica_id: str, requests: int, prefill: int, decode: int) -> None:
        """Add to a replica's totals (negative to take away); unknown replicas are ignored."""
        totals = self._by_replica.get(replica_id)
        if totals is None:
            return
        totals.requests += requests
        totals.prefill_tokens += prefill
        totals.decode_tokens += decode
