"""What a routing decision reads and returns. Everything here is immutable and free of I/O."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import msgspec

from router.held import NOTHING_HELD, Held
from router.tiers import Tiered, TierUse

#: Of Llama-3.1-8B; see :class:`ReplicaInfo`.
USUAL_ATTENTION_TOKENS = 30_000.0
#: What a replica is for; see :class:`ReplicaInfo`.
Role = Literal["mixed", "prefill", "decode"]


class RouteRequest(msgspec.Struct, frozen=True):
    """One request as the router sees it.

    ``block_hashes`` are the chained hashes of the prompt's full KV blocks, first to last
    (block *i* covers tokens ``[i * block_size, (i + 1) * block_size)``). Times are seconds on
    the caller's monotonic clock. ``urgency``: its class's place among the classes' urgencies; 0 is
    the most urgent, and an engine that yields computes nothing of a less urgent request while it
    has a prompt of a more urgent one. ``facts``: whatever the caller's spill rule wants to know of
    the request; the router itself never looks at it. ``expected_output_tokens`` 0: not known, the
    dispatcher fills it in. ``adapter``: the key of its LoRA adapter.

    A struct, as :class:`Decision` is one: several are made for each request, and a frozen
    dataclass takes a call per field.
    """

    request_id: str
    model: str
    tenant: str
    prompt_tokens: int
    max_output_tokens: int
    expected_output_tokens: int = 0
    priority_class: str = "standard"
    block_hashes: tuple[int, ...] = ()
    arrival_s: float = 0.0
    deadline_s: float | None = None
    urgency: int = 0
    facts: object | None = None
    adapter: str | None = None

    def completed(self, expected_output_tokens: int, urgency: int) -> RouteRequest:
        """The same with these two filled in."""
        return msgspec.structs.replace(
            self, expected_output_tokens=expected_output_tokens, urgency=urgency
        )


@dataclass(frozen=True, slots=True)
class KvFeed:
    """Where a replica publishes its KV events (``tcp://host:port``), and how its engine makes
    block hashes (see :mod:`router.hashing`)."""

    events: str
    replay: str | None
    algorithm: str
    seed: str


@dataclass(frozen=True, slots=True)
class ReplicaInfo:
    """A member of the replica set, as Ray Serve (or the simulator) announces it.

    ``attention_tokens``: context at which attending costs a new token as much as the rest of the
    model: ``2 * parameters / (4 * layers * hidden size)`` by FLOPs, 30k for Llama-3.1-8B.
    ``kv_events``: it publishes its KV events, so predictions about it must be confirmed.
    ``yielding_step_tokens``: the token budget of a step of an engine that yields to more urgent
    requests between two steps (0: it finishes what it has begun).
    ``role``: a ``prefill`` replica computes prompts that another one decodes; a ``decode`` one
    decodes what another computed, and whole requests too; a ``mixed`` one does whatever comes. It
    may change while the replica runs (``changes_role``: it can be told to); ``own_role`` is then
    that of its pool (None: the same). ``pool``: the one of the model's pools that it belongs to;
    empty where the model has none. ``started_s``: since when it takes a machine, in seconds since
    the epoch (0: it has not told).
    """

    replica_id: str
    address: str = ""
    kv_blocks_total: int = 0
    block_size: int = 16
    max_running: int = 256
    max_model_len: int = 0
    attention_tokens: float = USUAL_ATTENTION_TOKENS
    tasks: frozenset[str] = frozenset()
    kv_events: bool = False
    kv_feed: KvFeed | None = None
    yielding_step_tokens: int = 0
    role: Role = "mixed"
    pool: str = ""
    started_s: float = 0.0
    changes_role: bool = False
    own_role: Role | None = None

    @property
    def pool_role(self) -> Role:
        """What its pool is for, whatever it does itself at the moment."""
        return self.own_role or self.role


@dataclass(frozen=True, slots=True)
class ReplicaLoad:
    """What was dispatched to one replica and is not finished, as far as it is known here.

    ``context_tokens``: prompt and output so far of those requests, which is what they keep in
    the KV cache (shared prefixes counted once per request).
    """

    requests: int = 0
    prefill_tokens: int = 0
    decode_tokens: int = 0
    context_tokens: int = 0

    @property
    def outstanding_tokens(self) -> int:
        """Tokens still to prefill plus tokens still expected to be generated."""
        return self.prefill_tokens + self.decode_tokens


@dataclass(frozen=True, slots=True)
class ReplicaStats:
    """What a replica said about itself, and when: ``at_s`` on the caller's monotonic clock.

    ``elsewhere``: what other gateways have in flight there, told apart by the replica itself.
    ``mfu``, ``mbu``: shown to operators (:mod:`weir.cards.usage`); no policy reads them.
    ``tiers``: what it keeps outside its device (None: nothing).
    ``role_until``: when its role is its pool's again, in seconds since the epoch (None: when it is
    told to); shown to operators, too.
    """

    running: int = 0
    waiting: int = 0
    kv_blocks_used: int = 0
    at_s: float = 0.0
    elsewhere: ReplicaLoad = ReplicaLoad()
    mfu: float | None = None
    mbu: float | None = None
    tiers: TierUse | None = None
    role_until: float | None = None


@dataclass(frozen=True, slots=True)
class LatencyFit:
    """What was learned of one replica's speed (see :mod:`router.latency`), in seconds.

    TTFT = ``ttft[0] + ttft[1] * kilotokens to prefill, own included + ttft[2] * requests``;
    TPOT = ``tpot[0] + tpot[1] * requests + tpot[2] * kilotokens of context``.
    """

    ttft: tuple[float, float, float] = (0.0, 0.0, 0.0)
    tpot: tuple[float, float, float] = (0.0, 0.0, 0.0)
    samples: int = 0

    def ttft_s(self, prefill_tokens: float, requests: int) -> float:
        """Predicted time to first token; ``prefill_tokens`` ahead and own, uncached."""
        base, per_kilotoken, per_request = self.ttft
        return max(0.0, base + per_kilotoken * prefill_tokens / 1000.0 + per_request * requests)

    def tpot_s(self, requests: int, context_tokens: float) -> float:
        """Predicted time per output token."""
        base, per_request, per_kilotoken = self.tpot
        return max(0.0, base + per_request * requests + per_kilotoken * context_tokens / 1000.0)


@dataclass(frozen=True, slots=True)
class ReplicaView:
    """One replica at one instant: membership, work in flight from all gateways, its last stats
    with their age."""

    info: ReplicaInfo
    load: ReplicaLoad = ReplicaLoad()
    stats: ReplicaStats = ReplicaStats()
    latency: LatencyFit = LatencyFit()

    @property
    def replica_id(self) -> str:
        return self.info.replica_id


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


class Decision(msgspec.Struct, frozen=True):
    """Where a request goes, and why (for logs and headers)."""

    replica_id: str
    reason: str
    overlap_blocks: int = 0


class PairDecision(Decision, frozen=True):
    """``prefill_id`` computes the prompt, ``replica_id`` generates the answer from its KV blocks.

    ``overlap_blocks`` are held by ``replica_id``, and need no transfer; ``prefill_overlap_blocks``
    by ``prefill_id``, and need no prefill.
    """

    prefill_id: str = ""
    prefill_overlap_blocks: int = 0


def prefill_replica_of(decision: Decision) -> str | None:
    """The replica that computes the prompt for another one; None: the answering one does."""
    return decision.prefill_id if isinstance(decision, PairDecision) else None
