"""What gateways tell the control process of this moment, for ``/dashboard``: through Redis, and
only while somebody looks.

Each gateway knows its own part: the requests that it has answered, those that wait at its gate.
What replicas say of themselves, all gateways hear. Prompts and answers are in none of it.

Times are milliseconds since the epoch, unless they are of a request: those are milliseconds after
its arrival. Amounts are whole nano-USD.
"""

from __future__ import annotations

from typing import Final

import msgspec

#: There while somebody looks; it goes by itself when nobody does any more.
WATCHED: Final = "weir:live:watched"
#: A hash: the last board of each gateway, by the gateway's name.
BOARDS: Final = "weir:live:boards"
WATCHED_S: Final = 15
#: Older boards are those of gateways that are gone.
STALE_MS: Final = 15_000
#: How long a stretch of time is for which sums are kept, and how many of them.
STRETCH_MS: Final = 30_000
STRETCHES: Final = 30


class Candidate(msgspec.Struct, frozen=True):
    """A replica that could have been chosen. ``cost``: as its policy weighs it; the least that has
    room wins."""

    replica: str
    cost: float
    prefill_tokens: int
    decode_tokens: int
    held_blocks: int


class LegFacts(msgspec.Struct):
    """One placement of a choice. ``reason``: the policy's; ``candidates``: what it weighed, the
    best first; ``loss``: how the replica was lost, where the choice went on elsewhere."""

    choice: int
    replica: str
    begun_ms: float
    ended_ms: float
    prefill_replica: str = ""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    loss: str = ""
    reason: str = ""
    held_blocks: int = 0
    candidates: list[Candidate] = []


class AttemptFacts(msgspec.Struct):
    """All choices by one model. ``admitted_ms``: None if it never got past the queue, in which it
    ``waited_ms``. ``outcome``: shown, doubtful or dropped."""

    model: str
    adapter: str
    spill: str
    outcome: str
    admitted_ms: float | None
    waited_ms: float | None
    legs: list[LegFacts]


class EndedRequest(msgspec.Struct):
    """A request that has ended. ``status`` 0: its client had left. ``ttft_ms`` and ``tpot_ms``:
    None where there is none, or an error."""

    serial: str
    id: str
    tenant: str
    endpoint: str
    priority_class: str
    model: str
    status: int
    code: str
    arrived_ms: int
    took_ms: float
    ttft_ms: float | None
    tpot_ms: float | None
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    nano_usd: int
    batch: bool
    attempts: list[AttemptFacts]


class Sums(msgspec.Struct):
    """Requests that have ended, and what they came to. ``failed``: by the platform's fault;
    ``refused``: for what they asked, or for their tenant's limits. ``moved``: legs that went on
    where another broke off."""

    requests: int = 0
    failed: int = 0
    refused: int = 0
    ttft_met: int = 0
    ttft_missed: int = 0
    tpot_met: int = 0
    tpot_missed: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    nano_usd: int = 0
    moved: int = 0
    spills: dict[str, int] = {}

    def add(self, other: Sums) -> None:
        """The sums of both."""
        for name in _COUNTED:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for reason, count in other.spills.items():
            self.spills[reason] = self.spills.get(reason, 0) + count


_COUNTED: Final = tuple(name for name in Sums.__struct_fields__ if name != "spills")


class Row(msgspec.Struct):
    """The sums of one tenant, model and class in one stretch of time."""

    tenant: str
    model: str
    priority_class: str
    sums: Sums


class Stretch(msgspec.Struct):
    """The rows of the stretch of time that begins at ``begun_ms``, a multiple of
    :data:`STRETCH_MS`."""

    begun_ms: int
    rows: list[Row]


class ReplicaFacts(msgspec.Struct):
    """A replica, as it has told a gateway ``age_s`` ago. ``role``: what it does now;
    ``outstanding_tokens``: what gateways have dispatched and not seen finished."""

    id: str
    model: str
    pool: str
    role: str
    kv_use: float
    running: int
    waiting: int
    outstanding_tokens: int
    age_s: float
    mfu: float | None = None
    mbu: float | None = None


class QueueFacts(msgspec.Struct):
    """Requests at a gate. ``late``: they wait, and can no longer keep their class's limit."""

    model: str
    priority_class: str
    waiting: int
    in_flight: int
    late: int


class Board(msgspec.Struct):
    """All that one gateway tells. ``in_flight``: requests being served, by tenant."""

    gateway: str
    at_ms: int
    in_flight: dict[str, int]
    replicas: list[ReplicaFacts]
    queues: list[QueueFacts]
    stretches: list[Stretch]
    recent: list[EndedRequest]


encode: Final = msgspec.json.Encoder().encode
decode: Final = msgspec.json.Decoder(Board).decode
