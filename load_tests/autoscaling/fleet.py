"""What a run of the fluid model takes place in, and what it comes to."""

from __future__ import annotations

from dataclasses import dataclass, field

from load_tests.autoscaling.engines import ReplicaTable
from weir.autoscaling.report import PoolState


@dataclass(frozen=True, slots=True)
class PoolKind:
    """One pool and what its replicas are. ``notice_s``: before a spot replica is taken away.
    ``outages_per_day``: of the whole place."""

    state: PoolState
    table: ReplicaTable
    notice_s: float = 120.0
    outages_per_day: float = 0.0


@dataclass(frozen=True, slots=True)
class World:
    """``decide_s``: between two decisions. ``batch_within_s``: batch work has so long.
    ``spill_share``: of all urgent requests so far, that a student may answer for
    ``spill_usd`` each when there are more than the replicas keep in time. ``sees_batch``: False
    where batch work stands behind a gate that the policy does not see."""

    pools: tuple[PoolKind, ...]
    ttft_slo_s: float
    tpot_slo_s: float
    decide_s: float = 30.0
    drain_s: float = 30.0
    batch_within_s: float = 6 * 3600.0
    spill_share: float = 0.0
    spill_usd: float = 0.0
    sees_batch: bool = True
    seed: int = 7


@dataclass(slots=True)
class Moment:
    """Of one stretch of time, for pictures and for recovery: means, and the worst share in time."""

    at_s: float
    replicas: float = 0.0
    usd_per_hour: float = 0.0
    waiting: float = 0.0
    urgent: float = 0.0
    urgent_met: float = 0.0
    ticks: int = 0

    @property
    def met(self) -> float:
        """Share of urgent requests in time; 1 without any."""
        return self.urgent_met / self.urgent if self.urgent else 1.0


@dataclass(slots=True)
class Outcome:
    """Of one run. ``met``: share of urgent requests within TTFT and TPOT. ``flaps``: changes of
    direction. ``late_batch``: tokens of batch work done, or still undone, after their time.
    ``moments``: one for each ``every_s``."""

    usd: float = 0.0
    replica_hours: float = 0.0
    urgent: float = 0.0
    urgent_met: float = 0.0
    minutes_lost: float = 0.0
    flaps: int = 0
    changes: int = 0
    interrupted: int = 0
    batch: float = 0.0
    late_batch: float = 0.0
    spilt: float = 0.0
    seconds: float = 0.0
    moments: list[Moment] = field(default_factory=list)

    @property
    def met(self) -> float:
        """In [0, 1]; 1 without urgent requests."""
        return self.urgent_met / self.urgent if self.urgent else 1.0

    @property
    def late_batch_share(self) -> float:
        """In [0, 1]; 0 without batch work."""
        return self.late_batch / self.batch if self.batch else 0.0
