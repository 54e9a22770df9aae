"""Which replicas have room: the pure side of late binding.

A request stays in the gateway's queue until some replica has room for it, because a queue inside
a replica can be neither reordered nor moved. Room is measured on three limits per replica
(outstanding prefill tokens, requests, KV blocks). A class may fill a replica up to its
:class:`Share` of each limit, everybody's work counted: trunk reservation, which leaves the rest
free for the classes before it. A replica with no request has room for anything, so no replica
idles while something waits.

What a replica's cache spares a request counts as room there. Without that, a replica whose prefill
limit is reached is left out whatever it holds, the request is computed again elsewhere, fills that
replica, too, and late binding destroys the locality that routing built (docs/simulator.md has the
figures).

Working sets. When the sessions under way need more KV than the fleet has, each of their prompts
pushes out one that is about to return, is computed again and pushes out the next: the fleet does
nothing else. As in operating systems (Denning, "The Working Set Model for Program Behavior", CACM
1968), the cure is to let fewer in. A long prompt that is cached nowhere goes to a replica that
would lose nothing in use for it. While the fleet thrashes it waits for one; ageing lets one in now
and then, and who is in keeps their cache. Otherwise it goes where it must: a cache that is well
used always pushes out something that comes back, and waiting for that costs more than it saves.
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

    ``crowd_out``: a long prompt that is cached nowhere may push out prefixes that are in use.
    """

    prefill: float = 1.0
    running: float = 1.0
    kv: float = 1.0
    prefilling: float = 1.0
    crowd_out: bool = False

    def __post_init__(self) -> None:
        for name in ("prefill", "running", "kv", "prefilling"):
            if not 0 < getattr(self, name) <= 1:
                raise ConfigError(f"share.{name}: expected a number above 0, at most 1")

    def narrowed(self, other: Share) -> Share:
        """The smaller part of each."""
        return Share(
            min(self.prefill, other.prefill),
            min(self.running, other.running),
            min(self.kv, other.kv),
            min(self.prefilling, other.prefilling),
            self.crowd_out and other.crowd_out,
        )


FULL_SHARE = Share()
#: What ageing gives: everything, without regard to what is cached.
AGED_SHARE = Share(crowd_out=True)


@dataclass(frozen=True, slots=True)
class ReplicaLimits:
    """Per-replica limits.

    ``prefill_tokens``: prefill work dispatched and thought not to be done yet (see
    :mod:`router.ledger`); about two engine steps' token budgets keep the engine busy without a
    queue inside it. ``running``: requests, by
    default what the replica announces. ``kv_fill``: part of the KV blocks to plan for.
    ``cached_token_room``: prompt tokens that a request may find outstanding beyond
    ``prefill_tokens`` for each of its own tokens that the replica has cached.
    ``keep_prefixes_s``, ``cold_tokens``: a prompt of which a replica would have to compute
    ``cold_tokens`` or more does not start there while its cache would lose prefixes used within
    ``keep_prefixes_s`` (0: never minded), if another would not, or while the fleet thrashes.
    Hosted APIs keep a cached prompt for five to ten minutes, too.
    ``stats_max_age_s``: older stats of a replica are ignored, the own ledger stands alone.
    """

    prefill_tokens: int = 4096
    running: int | None = None
    kv_fill: float = 0.95
    cached_token_room: float = 8.0
    keep_prefixes_s: float = 600.0
    cold_tokens: int = 32_768
    stats_max_age_s: float = 1.0

    def __post_init__(self) -> None:
        if self.prefill_tokens < 1 or (self.running is not None and self.running < 1):
            raise ConfigError("admission.limits: prefill_tokens and running must be at least 1")
        if not 0 < self.kv_fill <= 1:
            raise ConfigError("admission.limits.kv_fill: expected a number above 0, at most 1")
        if self.cached_token_room < 0:
            raise ConfigError("admission.limits.cached_token_room: expected a number, at least 0")


class Capacity(Protocol):
    """What :meth:`AdmissionQueue.next` asks."""

    def saturated_for(self, request: RouteRequest, share: Share) -> frozenset[str] | None:
        """Ids of the replicas without room for ``request``; None when none has room."""
        ...

    def holds_back(self, request: RouteRequest, share: Share) -> bool:
        """When none has room: whether what the replicas have cached is the reason, so that
        another tenant's request may have room all the same."""
        ...


Overlap = Callable[[RouteRequest], Mapping[str, int]]
Unused = Callable[[str], float]
"""Replica id → seconds since what its cache would lose next was used (infinite: has space)."""


class Unlimited:
    """Room for everything, everywhere: admission switched off."""

    def saturated_for(self, request: RouteRequest, share: Share) -> frozenset[str] | None:
        return frozenset()

    def holds_back(self, request: RouteRequest, share: Share) -> bool:
        return False


class SnapshotCapacity:
    """Room as one snapshot shows it: O(replicas) per question.

    KV in use is the replica's word while fresh, else what the own requests
    keep; what the outstanding tokens will need is added to either. ``overlap`` tells how many of
    a request's leading blocks each replica holds, which need neither prefill nor new blocks; it
    is asked only where a replica lacks room for one of the two. ``thrashing``: prefixes that come
    back are lost in between, so that long cold prompts have to wait.
    """

    __slots__ = (
        "_asked",
        "_holders",
        "_kv",
        "_limits",
        "_overlap",
        "_snapshot",
        "_thrashing",
        "_unused_s",
    )

    def __init__(
        self,
        snapshot: Snapshot,
        limits: ReplicaLimits,
        overlap: Overlap | None = None,
        unused_s: Unused | None = None,
        thrashing: bool = True,
    ) -> None:
        self._snapshot = snapshot
        self._limits = limits
        self._overlap = overlap
        self._unused_s = unused_s
        self._thrashing = thrashing
        self._kv: Sequence[int] | None = None
        self._asked: RouteRequest | None = None
        self._holders: Mapping[str, int] = {}

    def saturated_for(self, request: RouteRequest, share: Share) -> frozenset[str] | None:
        columns, limits = self._snapshot.columns.for_urgency(request.urgency), self._limits
        fleet = columns.fleet
        # With the whole limit a prompt may overshoot it. A class that leaves head-room may do so
        # on a replica without prompts only: what is left of a prompt after one engine step takes
        # the next step from whoever arrives meanwhile. (Nothing slips past a head without room,
        # so such a replica comes.)
        most_prefill, outstanding = share.prefill * limits.prefill_tokens, columns.prefill_work
        if share.prefill < 1.0:
            most_prefill = max(1.0, most_prefill - request.prompt_tokens)
            outstanding = columns.prefill_tokens  # an estimate is no head-room
        starts = self._may_start(columns.prefill_tokens, share.prefilling)
        full: list[str] = []
        unless_held: list[int] = []
        kv_matters: list[int] = []
        rows = zip(fleet.infos, columns.requests, outstanding, strict=True)
        for slot, (info, requests, prefill) in enumerate(rows):
            if not requests:
                continue
            running = limits.running or info.max_running
            if requests + 1 > max(1.0, share.running * running) or not (starts or prefill):
                full.append(info.replica_id)
            elif prefill >= most_prefill:
                unless_held.append(slot)
            elif info.kv_blocks_total:
                kv_matters.append(slot)
        if unless_held:
            full += self._without_prefill(
                unless_held, outstanding, request, most_prefill, kv_matters
            )
        if kv_matters:
            full += self._without_kv(kv_matters, request, share.kv)
        if not share.crowd_out and request.prompt_tokens >= limits.cold_tokens:
            spared = {*full, *self._crowded(request)}
            if self._thrashing or len(spared) < len(fleet.ids):
                full = [*spared]
        return None if len(full) == len(fleet.ids) else frozenset(full)

    def _may_start(self, prefill: Sequence[int], share: float) -> bool:
        """Whether one more replica may get a prompt outstanding."""
        if share >= 1.0:
            return True
        return sum(map(bool, prefill)) < max(1, int(share * len(prefill)))

    def _without_prefill(
        self,
        slots: list[int],
        outstanding: Sequence[float],
        request: RouteRequest,
        most: float,
        kv_matters: list[int],
    ) -> list[str]:
        """Those of ``slots``, all at their prefill limit, whose cache does not make up for it;
        the others go on to ``kv_matters``."""
        fleet, per_token = self._snapshot.columns.fleet, self._limits.cached_token_room
        held = self._held(request)
        full = []
        for slot in slots:
            cached = held.get(fleet.ids[slot], 0) * fleet.block_sizes[slot]
            if outstanding[slot] >= most + per_token * cached:
                full.append(fleet.ids[slot])
            elif fleet.capacity_tokens[slot]:
                kv_matters.append(slot)
        return full

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
        held = self._held(request)
        return [
            fleet.ids[slot]
            for slot, over in lacking
            if over > held.get(fleet.ids[slot], 0) * fleet.block_sizes[slot]
        ]

    def holds_back(self, request: RouteRequest, share: Share) -> bool:
        """Whether some replica lacks room only for the sake of the prefixes it holds."""
        cold = not share.crowd_out and request.prompt_tokens >= self._limits.cold_tokens
        return self._thrashing and cold and bool(self._crowded(request))

    def _crowded(self, request: RouteRequest) -> list[str]:
        """Ids of the busy replicas where ``request`` is cold and would push out prefixes that
        were used lately."""
        if self._unused_s is None:
            return []
        columns, limits, held = self._snapshot.columns, self._limits, self._held(request)
        fleet, prompt = columns.fleet, request.prompt_tokens
        return [
            rid
            for rid, size, requests in zip(
                fleet.ids, fleet.block_sizes, columns.requests, strict=True
            )
            if requests
            and prompt - held.get(rid, 0) * size >= limits.cold_tokens
            and self._unused_s(rid) < limits.keep_prefixes_s
        ]

    def _held(self, request: RouteRequest) -> Mapping[str, int]:
        if self._overlap is None:
            return self._snapshot.overlap_blocks
        if self._asked is not request:
            self._asked, self._holders = request, self._overlap(request)
        return self._holders

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
