"""Which replicas have room: the pure side of late binding.

A request stays in the gateway's queue until some replica has room for it, because a queue inside
a replica can be neither reordered nor moved. Room is measured on three limits per replica
(outstanding prefill tokens, requests, KV blocks). A class may fill a replica up to its
:class:`Share` of each limit, everybody's work counted: trunk reservation, which leaves the rest
free for the classes before it. A replica with no request has room for anything, so no replica
idles while something waits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from router.types import ReplicaView, RouteRequest, Snapshot
from weir.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Share:
    """How far a class may fill a replica, as a part (0, 1] of each limit."""

    prefill: float = 1.0
    running: float = 1.0
    kv: float = 1.0

    def __post_init__(self) -> None:
        for name in ("prefill", "running", "kv"):
            if not 0 < getattr(self, name) <= 1:
                raise ConfigError(f"share.{name}: expected a number above 0, at most 1")


FULL_SHARE = Share()


@dataclass(frozen=True, slots=True)
class ReplicaLimits:
    """Per-replica limits.

    ``prefill_tokens``: prompt tokens dispatched and not yet prefilled; about two engine steps'
    token budgets keep the engine busy without a queue inside it. ``running``: requests, by
    default what the replica announces. ``kv_fill``: part of the KV blocks to plan for.
    ``stats_max_age_s``: older stats of a replica are ignored, the own ledger stands alone.
    """

    prefill_tokens: int = 8192
    running: int | None = None
    kv_fill: float = 0.95
    stats_max_age_s: float = 1.0

    def __post_init__(self) -> None:
        if self.prefill_tokens < 1 or (self.running is not None and self.running < 1):
            raise ConfigError("admission.limits: prefill_tokens and running must be at least 1")
        if not 0 < self.kv_fill <= 1:
            raise ConfigError("admission.limits.kv_fill: expected a number above 0, at most 1")


@dataclass(frozen=True, slots=True)
class Occupancy:
    """What is taken on one replica: prompt tokens to prefill, requests, and KV blocks
    including those that the outstanding tokens will need."""

    prefill_tokens: int
    requests: int
    kv_blocks: int


def occupancy(view: ReplicaView, now_s: float, limits: ReplicaLimits) -> Occupancy:
    """Own ledger and the replica's stats, which see other gateways too.

    Counts of requests are taken from stats only while they are fresh. The KV blocks in use are
    taken from the last stats whatever their age: the ledger knows what is still to come, not
    what earlier tokens hold.
    """
    load, stats = view.load, view.stats
    coming = -(-load.outstanding_tokens // view.info.block_size)
    requests = load.requests
    if now_s - stats.at_s <= limits.stats_max_age_s:
        requests = max(requests, stats.running + stats.waiting)
    return Occupancy(load.prefill_tokens, requests, stats.kv_blocks_used + coming)


class Capacity(Protocol):
    """What :meth:`AdmissionQueue.next` asks."""

    def saturated_for(self, request: RouteRequest, share: Share) -> frozenset[str] | None:
        """Ids of the replicas without room for ``request``; None when none has room."""
        ...


Overlap = Callable[[RouteRequest], Mapping[str, int]]


class SnapshotCapacity:
    """Room as one snapshot shows it: O(replicas), occupancy worked out once per snapshot.

    ``overlap`` tells how many of a request's leading blocks each replica holds (they need no new
    KV blocks); without it every block is counted as new.
    """

    __slots__ = ("_limits", "_overlap", "_rooms", "_snapshot")

    def __init__(
        self, snapshot: Snapshot, limits: ReplicaLimits, overlap: Overlap | None = None
    ) -> None:
        self._snapshot = snapshot
        self._limits = limits
        self._overlap = overlap
        self._rooms: list[tuple[ReplicaView, Occupancy]] | None = None

    def saturated_for(self, request: RouteRequest, share: Share) -> frozenset[str] | None:
        rooms = self._rooms
        if rooms is None:
            rooms = self._rooms = self._occupancies()
        held = self._overlap(request) if self._overlap else self._snapshot.overlap_blocks
        full = [
            view.info.replica_id
            for view, taken in rooms
            if taken.requests and not self._fits(view, taken, request, share, held)
        ]
        return None if len(full) == len(rooms) else frozenset(full)

    def _occupancies(self) -> list[tuple[ReplicaView, Occupancy]]:
        now_s, limits = self._snapshot.now_s, self._limits
        return [(view, occupancy(view, now_s, limits)) for view in self._snapshot.replicas]

    def _fits(
        self,
        view: ReplicaView,
        taken: Occupancy,
        request: RouteRequest,
        share: Share,
        held: Mapping[str, int],
    ) -> bool:
        info, limits = view.info, self._limits
        # A prompt may overshoot the prefill limit: whether there is room must not depend on its
        # length, or short prompts would keep a long one out for ever.
        if taken.prefill_tokens >= share.prefill * limits.prefill_tokens:
            return False
        running = info.max_running if limits.running is None else limits.running
        if taken.requests + 1 > max(1.0, share.running * running):
            return False
        if not info.kv_blocks_total:
            return True
        tokens = request.prompt_tokens + request.expected_output_tokens
        need = -(-tokens // info.block_size) - held.get(info.replica_id, 0)
        return taken.kv_blocks + need <= share.kv * limits.kv_fill * info.kv_blocks_total
