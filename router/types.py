"""What a routing decision reads and returns. Everything here is immutable and free of I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class RouteRequest:
    """One request as the router sees it.

    ``block_hashes`` are the chained hashes of the prompt's full KV blocks, first to last
    (block *i* covers tokens ``[i * block_size, (i + 1) * block_size)``). Times are seconds on
    the caller's monotonic clock.
    """

    request_id: str
    model: str
    tenant: str
    prompt_tokens: int
    max_output_tokens: int
    expected_output_tokens: int
    priority_class: str = "standard"
    block_hashes: tuple[int, ...] = ()
    adapter: str | None = None
    session: str | None = None
    arrival_s: float = 0.0
    deadline_s: float | None = None


@dataclass(frozen=True, slots=True)
class ReplicaInfo:
    """A member of the replica set, as Ray Serve (or the simulator) announces it."""

    replica_id: str
    address: str = ""
    kv_blocks_total: int = 0
    block_size: int = 16
    max_running: int = 256
    adapters: frozenset[str] = frozenset()
    since_s: float = 0.0


@dataclass(frozen=True, slots=True)
class ReplicaStats:
    """What a replica said about itself, and when: ``at_s`` on the caller's monotonic clock."""

    running: int = 0
    waiting: int = 0
    kv_blocks_used: int = 0
    at_s: float = 0.0


@dataclass(frozen=True, slots=True)
class ReplicaLoad:
    """What this process dispatched to one replica and has not yet seen finished."""

    requests: int = 0
    prefill_tokens: int = 0
    decode_tokens: int = 0

    @property
    def outstanding_tokens(self) -> int:
        """Tokens still to prefill plus tokens still expected to be generated."""
        return self.prefill_tokens + self.decode_tokens


@dataclass(frozen=True, slots=True)
class ReplicaView:
    """One replica at one instant: membership, own ledger, its last stats with their age."""

    info: ReplicaInfo
    load: ReplicaLoad = ReplicaLoad()
    stats: ReplicaStats = ReplicaStats()

    @property
    def replica_id(self) -> str:
        return self.info.replica_id


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All candidates at ``now_s``. ``overlap_blocks`` maps a replica id to the number of the
    request's leading blocks it holds (absent means 0)."""

    now_s: float
    replicas: tuple[ReplicaView, ...]
    overlap_blocks: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Decision:
    """Where a request goes, and why (for logs and headers)."""

    replica_id: str
    reason: str
    overlap_blocks: int = 0
