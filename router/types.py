"""What a routing decision reads and returns. Everything here is immutable and free of I/O."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import msgspec

from router.tiers import TierUse

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
