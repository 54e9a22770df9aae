"""The router: membership, ledger and policy put together. Choosing and reserving are one step."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterable

from router.ledger import Ledger, Reservation
from router.policy import Policy
from router.types import ReplicaInfo, ReplicaStats, ReplicaView, RouteRequest, Snapshot
from weir.errors import NoReplicaError


class Router:
    """Decides for one model. Not thread-safe: one event loop (or the simulator) owns it.

    ``clock`` gives monotonic seconds; ``rng`` is the only source of randomness.
    """

    def __init__(self, policy: Policy, clock: Callable[[], float], rng: random.Random) -> None:
        self._policy = policy
        self._clock = clock
        self._rng = rng
        self._ledger = Ledger()
        self._members: dict[str, ReplicaInfo] = {}
        self._stats: dict[str, ReplicaStats] = {}

    @property
    def members(self) -> tuple[ReplicaInfo, ...]:
        return tuple(self._members.values())

    def set_replicas(self, replicas: Iterable[ReplicaInfo]) -> None:
        """Replace the replica set; what was outstanding on the departed is forgotten."""
        new = {info.replica_id: info for info in replicas}
        for gone in self._members.keys() - new.keys():
            self._ledger.forget(gone)
            self._stats.pop(gone, None)
        self._members = new

    def update_stats(self, replica_id: str, stats: ReplicaStats) -> None:
        """Keep a replica's own view of itself; ignored for strangers."""
        if replica_id in self._members:
            self._stats[replica_id] = stats

    def snapshot(self, exclude: Collection[str] = ()) -> Snapshot:
        """All members except ``exclude`` (replicas that just failed this request)."""
        views = tuple(
            ReplicaView(info, self._ledger.load(rid), self._stats.get(rid, ReplicaStats()))
            for rid, info in self._members.items()
            if rid not in exclude
        )
        return Snapshot(self._clock(), views)

    def choose(self, request: RouteRequest, exclude: Collection[str] = ()) -> Reservation:
        """Pick a replica and count the request on it, in one synchronous step.

        Raises:
            NoReplicaError: no member is left to choose from.
        """
        snapshot = self.snapshot(exclude)
        if not snapshot.replicas:
            raise NoReplicaError(f"model {request.model!r} has no replica that can take a request")
        decision = self._policy.choose(request, snapshot, self._rng)
        return self._ledger.reserve(request, decision)
