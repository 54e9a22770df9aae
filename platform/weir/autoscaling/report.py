"""What an autoscaling policy sees of the fleet, and what it answers. All frozen, all plain data.

Rates are per second over the last window; tokens are counted when requests arrive, not when they
are answered, so that a saturated fleet does not look like little demand.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

from weir.cost import hour_of_day

Role = Literal["mixed", "prefill", "decode"]


@dataclass(frozen=True, slots=True)
class Demand:
    """Of one priority class. ``prompt``: all prompt tokens; ``computed``: those that no cache is
    expected to have.
    ``waiting_*``: at gateways and replicas, not begun. ``*_met``: shares of what was answered in
    the window, in [0, 1]. ``deferrable_s``: so long it may wait for cheaper hours (0: not at all).
    ``may_spill_per_s``: of the arrivals, those that the student may answer. ``generating``: answers
    under way.
    """

    arrivals_per_s: float = 0.0
    computed_tokens_per_s: float = 0.0
    output_tokens_per_s: float = 0.0
    waiting_requests: int = 0
    waiting_tokens: float = 0.0
    waiting_output_tokens: float = 0.0
    oldest_wait_s: float = 0.0
    ttft_p90_s: float = 0.0
    tpot_p90_s: float = 0.0
    ttft_met: float = 1.0
    tpot_met: float = 1.0
    deferrable_s: float = 0.0
    prompt_tokens_per_s: float = field(default=0.0, kw_only=True)
    may_spill_per_s: float = field(default=0.0, kw_only=True)
    generating: int = field(default=0, kw_only=True)


@dataclass(frozen=True, slots=True)
class Window:
    """What of batches has to be done within ``left_s`` seconds, what ends before it included."""

    left_s: float
    computed_tokens: float
    output_tokens: float


@dataclass(frozen=True, slots=True)
class Backlog:
    """Lines of batches that have no answer yet, wherever they wait. ``first_s``: until the first of
    their windows ends. ``windows``: the soonest first."""

    lines: int = 0
    first_s: float = 0.0
    windows: tuple[Window, ...] = ()

    @property
    def computed_tokens_per_s(self) -> float:
        """How fast prompts have to be computed for all to be ready in time."""
        return max((each.computed_tokens / each.left_s for each in self.windows), default=0.0)

    @property
    def output_tokens_per_s(self) -> float:
        """How fast answers have to be generated for all to be ready in time."""
        return max((each.output_tokens / each.left_s for each in self.windows), default=0.0)


@dataclass(frozen=True, slots=True)
class Capacity:
    """Of one replica: tokens per second that it computes of prompts when it does nothing else, and
    that it generates when it does nothing else. ``usable``: the share of its time that may be
    planned for, so that the rest keeps TTFT and TPOT within their limits. ``error``: of the model
    behind these figures, as a share."""

    prefill_tokens_per_s: float
    decode_tokens_per_s: float
    usable: float = 0.8
    error: float = 0.0


@dataclass(frozen=True, slots=True)
class PoolState:
    """Replicas of one kind. ``start_s``: from asking for a replica until it serves, as learned.
    ``interruptions_per_hour``: of one replica, learned per market. ``kv_use`` in [0, 1].
    ``splits``: which of its replicas only compute prompts follows the demand; ``prefilling``: so
    many were told to.
    ``usd_per_hour``: now; ``usd_by_hour``: at each hour of the day (UTC), empty where it is the
    same all day."""

    name: str
    capacity: Capacity
    usd_per_hour: float
    role: Role = "mixed"
    accelerator: str = ""
    region: str = ""
    market: Literal["on_demand", "spot"] = "on_demand"
    ready: int = 0
    starting: int = 0
    draining: int = 0
    least: int = 0
    most: int = 1
    running_requests: int = 0
    kv_use: float = 0.0
    start_s: float = 120.0
    interruptions_per_hour: float = 0.0
    splits: bool = False
    prefilling: int = 0
    usd_by_hour: tuple[float, ...] = ()

    def usd_at(self, at_s: float) -> float:
        """What an hour costs at a time, in seconds since the epoch."""
        by_hour = self.usd_by_hour
        return by_hour[hour_of_day(at_s)] if by_hour else self.usd_per_hour

    @property
    def current(self) -> int:
        """Replicas that serve or soon will."""
        return self.ready + self.starting

    @property
    def place(self) -> str:
        """What fails together: a market of an accelerator in a region."""
        return f"{self.region}/{self.accelerator}/{self.market}"


@dataclass(frozen=True, slots=True)
class Sample:
    """Demand of all classes that do not wait for cheaper hours, at one time."""

    at_s: float
    computed_tokens_per_s: float
    output_tokens_per_s: float


@dataclass(frozen=True, slots=True)
class Student:
    """Spilling as an alternative: what a request costs that the student answers instead, in USD,
    quality included as the operator prices it; and the share of the requests, of all classes that
    cannot wait, that may be."""

    usd_per_request: float
    most_share: float


@dataclass(frozen=True, slots=True)
class ModelState:
    """One model: demand by class, pools, limits, and the demand before (oldest first).
    ``generating``: answers under way, as gateways count them, on whatever replicas. ``backlog``:
    of batches; lines of it that wait at gateways are in ``classes`` too."""

    name: str
    classes: Mapping[str, Demand]
    pools: tuple[PoolState, ...]
    ttft_slo_s: float = 2.0
    tpot_slo_s: float = 0.1
    history: tuple[Sample, ...] = ()
    student: Student | None = None
    generating: int = 0
    backlog: Backlog = Backlog()

    @property
    def ongoing_requests(self) -> int:
        """Running and waiting, as most autoscalers count."""
        running = sum(pool.running_requests for pool in self.pools)
        return running + sum(demand.waiting_requests for demand in self.classes.values())


@dataclass(frozen=True, slots=True)
class FleetReport:
    """The whole fleet at one time (seconds since the epoch)."""

    at_s: float
    models: tuple[ModelState, ...]


Targets = Mapping[str, int]
"""Replicas by pool, of one model."""


@dataclass(frozen=True, slots=True)
class Alternative:
    """Something that was weighed: its targets, what it costs, and why it was not taken."""

    targets: Targets
    usd_per_hour: float
    verdict: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """``seen``: the figures that decided; ``because``: one sentence."""

    seen: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    because: str = ""
    alternatives: tuple[Alternative, ...] = ()


@dataclass(frozen=True, slots=True)
class Decision:
    """``spill_share``: of the requests, to the student. ``state``: what the policy wants to be
    given next time; it is the policy's own, and plain data."""

    targets: Targets
    explanation: Explanation
    spill_share: float = 0.0
    state: Any = None
