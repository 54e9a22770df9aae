"""Which replicas have room: the pure side of late binding.

A request stays in the gateway's queue until some replica has room for it, because a queue inside
a replica can be neither reordered nor moved. Room is measured on three limits per replica
(outstanding prefill tokens, requests, KV blocks). A class may fill a replica up to its
:class:`Share` of each limit, everybody's work counted: trunk reservation, which leaves the rest
free for the classes before it. A replica with no request has room for anything, so no replica
idles while something waits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from router.types import Columns, RouteRequest, Snapshot
from weir.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Share:
    """How far a class may fill a replica, as a part (0, 1] of each limit.

    ``prefilling``: the part of the fleet that may have prompts outstanding for the class to
    start another replica on one. An engine finishes a long prompt before it begins the next, so
    what an urgent request needs is less a short queue everywhere than one replica without any.
    """

    prefill: float = 1.0
    running: float = 1.0
    kv: float = 1.0
    prefilling: float = 1.0

    def __post_init__(self) -> None:
        for name in ("prefill", "running", "kv", "prefilling"):
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


class Capacity(Protocol):
    """What :meth:`AdmissionQueue.next` asks."""

    def saturated_for(self, request: RouteRequest, share: Share) -> frozenset[str] | None:
        """Ids of the replicas without room for ``request``; None when none has room."""
        ...


Overlap = Callable[[RouteRequest], Mapping[str, int]]


class SnapshotCapacity:
    """Room as one snapshot shows it: O(replicas) per question.

    KV in use is the replica's word while fresh, else what the own requests
    keep; what the outstanding tokens will need is added to either. ``overlap`` tells how many of
    a request's leading blocks each replica holds, which need no new ones; it is asked only where
    the KV cache is what lacks room.
    """

    __slots__ = ("_kv", "_limits", "_overlap", "_snapshot")

    def __init__(
        self, snapshot: Snapshot, limits: ReplicaLimits, overlap: Overlap | None = None
    ) -> None:
        self._snapshot = snapshot
        self._limits = limits
        self._overlap = overlap
        self._kv: Sequence[int] | None = None

    def saturated_for(self, request: RouteRequest, share: Share) -> frozenset[str] | None:
        columns, limits = self._snapshot.columns, self._limits
        fleet = columns.fleet
        # A prompt may overshoot the prefill limit: whether there is room must not depend on its
        # length, or short prompts would keep a long one out for ever.
        most_prefill = share.prefill * limits.prefill_tokens
        starts = self._may_start(columns.prefill_tokens, share.prefilling)
        full: list[str] = []
        kv_matters: list[int] = []
        rows = zip(fleet.infos, columns.requests, columns.prefill_tokens, strict=True)
        for slot, (info, requests, prefill) in enumerate(rows):
            if not requests:
                continue
            running = limits.running or info.max_running
            if (
                prefill >= most_prefill
                or requests + 1 > max(1.0, share.running * running)
                or not (starts or prefill)
            ):
                full.append(info.replica_id)
            elif info.kv_blocks_total:
                kv_matters.append(slot)
        if kv_matters:
            full += self._without_kv(kv_matters, request, share.kv)
        return None if len(full) == len(fleet.ids) else frozenset(full)

    def _may_start(self, prefill: Sequence[int], share: float) -> bool:
        """Whether one more replica may get a prompt outstanding."""
        if share >= 1.0:
            return True
        return sum(map(bool, prefill)) < max(1, int(share * len(prefill)))

    def _without_kv(self, slots: list[int], request: RouteRequest, share: float) -> list[str]:
        """Those of ``slots`` whose KV cache would be filled beyond the share."""
        fleet = self._snapshot.columns.fleet
        if self._kv is None:
            self._kv = self._kv_column(self._snapshot.columns)
        part = share * self._limits.kv_fill
        need = request.prompt_tokens + request.expected_output_tokens
        lacking = [
            (slot, over)
            for slot in slots
            if (over := self._kv[slot] + need - part * fleet.capacity_tokens[slot]) > 0
        ]
        if not lacking:
            return []
        held = self._overlap(request) if self._overlap else self._snapshot.overlap_blocks
        return [
            fleet.ids[slot]
            for slot, over in lacking
            if over > held.get(fleet.ids[slot], 0) * fleet.block_sizes[slot]
        ]

    def _kv_column(self, columns: Columns) -> Sequence[int]:
        oldest_s = self._snapshot.now_s - self._limits.stats_max_age_s
        return [
            stats.kv_blocks_used * block_size + prefill + decode
            if stats.at_s >= oldest_s
            else context + decode
            for stats, block_size, prefill, decode, context in zip(
                columns.stats,
                columns.fleet.block_sizes,
                columns.prefill_tokens,
                columns.decode_tokens,
                columns.context_tokens,
                strict=True,
            )
        ]
