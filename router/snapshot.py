"""What a routing decision sees of the candidates at one instant: a snapshot, one view or one column
after the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from router.held import NOTHING_HELD, Held
from router.tiers import Tiered
from router.types import (
    USUAL_ATTENTION_TOKENS,
    LatencyFit,
    ReplicaInfo,
    ReplicaLoad,
    ReplicaStats,
    ReplicaView,
)


class Fleet:
    """What of the candidates does not change from decision to decision, as columns.

    ``capacity_tokens`` is what the KV cache holds (0: unknown), ``least_capacity_tokens`` the least
    that is known. ``block_size`` is that of all of them (0: they differ), ``largest_block_size``
    and ``attention_tokens`` are the largest of any. ``has_roles``: not all are mixed.
    """

    __slots__ = (
        "attention_tokens",
        "block_size",
        "block_sizes",
        "capacity_tokens",
        "has_roles",
        "ids",
        "infos",
        "largest_block_size",
        "least_capacity_tokens",
        "least_max_running",
        "slots",
        "yields",
    )

    def __init__(self, infos: Sequence[ReplicaInfo]) -> None:
        self.infos = tuple(infos)
        self.ids = tuple(info.replica_id for info in infos)
        self.slots = {replica_id: slot for slot, replica_id in enumerate(self.ids)}
        self.block_sizes = tuple(info.block_size for info in infos)
        self.block_size = self.block_sizes[0] if len(set(self.block_sizes)) == 1 else 0
        self.largest_block_size = max(self.block_sizes, default=0)
        self.capacity_tokens = tuple(info.kv_blocks_total * info.block_size for info in infos)
        self.least_capacity_tokens = min((c for c in self.capacity_tokens if c), default=0)
        self.attention_tokens = max(
            (info.attention_tokens for info in infos), default=USUAL_ATTENTION_TOKENS
        )
        self.least_max_running = min((info.max_running for info in infos), default=0)
        self.yields = any(info.yielding_step_tokens for info in infos)
        self.has_roles = any(info.role != "mixed" for info in infos)


class Ahead(NamedTuple):
    """Columns of what goes before a request: as those of the same names in :class:`Columns`."""

    prefill_tokens: list[int]
    decode_tokens: list[int]
    context_tokens: list[int]
    prefill_work: list[float]


class Urgencies(Protocol):
    """Outstanding work told apart by urgency (:mod:`router.urgency`)."""

    def ahead_of(self, urgency: int) -> Ahead | None:
        """What a request of ``urgency`` meets; None: everything is ahead of it."""
        ...

    def only(self, slots: Sequence[int]) -> Urgencies:
        """Of these candidates."""
        ...


class Columns:
    """The candidates column by column, all in the order of ``fleet.ids``. Never changed.

    ``prefill_tokens`` are all that are outstanding; ``prefill_work`` is what of them is thought
    to be left now, attention counted (see :mod:`router.ledger`). Where engines yield, a request
    has less ahead of it than that: see :meth:`for_urgency`.

    A decision over 64 replicas has some 50 µs: one list comprehension per column fits, one
    object per replica does not (nor does a frozen dataclass, whose fields cost a call each).
    """

    __slots__ = (
        "_latency",
        "_most_blocks_used",
        "context_tokens",
        "decode_tokens",
        "fleet",
        "prefill_tokens",
        "prefill_work",
        "requests",
        "stats",
        "urgencies",
    )

    def __init__(
        self,
        fleet: Fleet,
        requests: Sequence[int],
        prefill_tokens: Sequence[int],
        decode_tokens: Sequence[int],
        context_tokens: Sequence[int],
        stats: Sequence[ReplicaStats],
        latency: Sequence[LatencyFit] | Callable[[], Sequence[LatencyFit]],
        prefill_work: Sequence[float] | None = None,
        urgencies: Urgencies | None = None,
        most_blocks_used: int | None = None,
    ) -> None:
        self.fleet = fleet
        self.requests = requests
        self.prefill_tokens = prefill_tokens
        self.prefill_work = prefill_tokens if prefill_work is None else prefill_work
        self.decode_tokens = decode_tokens
        self.context_tokens = context_tokens
        self.stats = stats
        self._latency = latency
        self.urgencies = urgencies
        self._most_blocks_used = most_blocks_used

    @property
    def most_blocks_used(self) -> int:
        """The most KV blocks that any candidate said to have in use, however long ago."""
        if self._most_blocks_used is None:
            used = [stats.kv_blocks_used for stats in self.stats]
            self._most_blocks_used = max(used, default=0)
        return self._most_blocks_used

    @property
    def latency(self) -> Sequence[LatencyFit]:
        """Fits per candidate; worked out when first asked for, which few policies do."""
        if callable(self._latency):
            self._latency = self._latency()
        return self._latency

    def only(self, slots: Sequence[int], fleet: Fleet) -> Columns:
        """Of these candidates, which are ``fleet``."""

        def latency() -> list[LatencyFit]:
            every = self.latency
            return [every[slot] for slot in slots]

        return Columns(
            fleet,
            [self.requests[slot] for slot in slots],
            [self.prefill_tokens[slot] for slot in slots],
            [self.decode_tokens[slot] for slot in slots],
            [self.context_tokens[slot] for slot in slots],
            [self.stats[slot] for slot in slots],
            latency,
            [self.prefill_work[slot] for slot in slots],
            self.urgencies.only(slots) if self.urgencies is not None else None,
        )

    def for_urgency(self, urgency: int) -> Columns:
        """The same with only that work which goes before a request of ``urgency``."""
        ahead = self.urgencies.ahead_of(urgency) if self.urgencies is not None else None
        if ahead is None:
            return self
        prefill, decode, context, work = ahead
        return Columns(
            self.fleet, self.requests, prefill, decode, context, self.stats, self._latency, work
        )


class Snapshot:
    """All candidates at ``now_s``. ``overlap_blocks`` maps a replica id to the number of the
    request's leading blocks it holds (absent means 0); ``held`` is the same as the prefix index
    tells it. ``adapter_work``: per candidate, what having the request's LoRA adapter there costs,
    in tokens of prefill (None: it wants no adapter). ``tiered``: replica id → the prompt's blocks
    behind those that it has outside its device.

    Given as ``replicas`` (one view each) or as ``columns``; each is derived from the other when
    first asked for. Never changed after it is made.
    """

    __slots__ = ("_columns", "_replicas", "adapter_work", "held", "now_s", "tiered")

    def __init__(
        self,
        now_s: float,
        replicas: tuple[ReplicaView, ...] | None = None,
        overlap_blocks: Mapping[str, int] = NOTHING_HELD,
        *,
        columns: Columns | None = None,
        adapter_work: Sequence[float] | None = None,
        tiered: Mapping[str, Tiered] | None = None,
    ) -> None:
        if (replicas is None) == (columns is None):
            raise ValueError("a snapshot is made of replicas or of columns")
        self.now_s = now_s
        self.held = overlap_blocks if isinstance(overlap_blocks, Held) else Held.of(overlap_blocks)
        self.adapter_work = adapter_work
        self.tiered = tiered
        self._replicas = replicas
        self._columns = columns

    @property
    def overlap_blocks(self) -> Mapping[str, int]:
        """See the class."""
        return self.held.every

    @property
    def replicas(self) -> tuple[ReplicaView, ...]:
        """One view per candidate."""
        if self._replicas is None:
            self._replicas = _views(self.columns)
        return self._replicas

    @property
    def columns(self) -> Columns:
        """The same, column by column."""
        if self._columns is None:
            self._columns = _columns(self.replicas)
        return self._columns


def _views(columns: Columns) -> tuple[ReplicaView, ...]:
    loads = zip(
        columns.requests,
        columns.prefill_tokens,
        columns.decode_tokens,
        columns.context_tokens,
        strict=True,
    )
    rows = zip(columns.fleet.infos, loads, columns.stats, columns.latency, strict=True)
    return tuple(ReplicaView(info, ReplicaLoad(*load), s, fit) for info, load, s, fit in rows)


def _columns(views: tuple[ReplicaView, ...]) -> Columns:
    return Columns(
        Fleet([view.info for view in views]),
        tuple(view.load.requests for view in views),
        tuple(view.load.prefill_tokens for view in views),
        tuple(view.load.decode_tokens for view in views),
        tuple(view.load.context_tokens for view in views),
        tuple(view.stats for view in views),
        tuple(view.latency for view in views),
    )
