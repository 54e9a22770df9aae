"""From what gateways tell to one :class:`~weir.autoscaling.report.FleetReport`. Pure.

Counts of a gateway are compared with what it told about ``window_s`` before. Gateways add up;
replicas are seen by all of them, and the newest word counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from weir.autoscaling.capacity import CapacityFit, Interruptions, Observed, StartClock, StartUp
from weir.autoscaling.report import Capacity, Demand, ModelState, PoolState, Sample, Student
from weir.autoscaling.telling import ClassTold, GatewayTold, ReplicaTold, quantile_s

#: A gateway that has told nothing for so long is gone.
STALE_S = 15.0
_WINDOW_S = 30.0
#: So long after it began to serve, what a replica does says little of what it can.
_WARM_S = 20.0
_SAMPLE_S = 60.0
_SAMPLES = 2 * 1440


@dataclass(frozen=True, slots=True)
class PoolPlan:
    """What the settings say of one pool. ``state``: with bounds, price, role, place; its counts are
    those of no replica. ``deployment``: its name in Ray Serve. ``scales``: False where the number
    is fixed. ``begins_with``: so many Serve starts before anything is decided.
    ``learns``: False where the capacity is taken as it is given."""

    state: PoolState
    deployment: str
    scales: bool = True
    begins_with: int = 0
    learns: bool = True


@dataclass(frozen=True, slots=True)
class ModelPlan:
    """What the settings say of one model. ``deferrable_s``: of classes that may wait. ``student``:
    its share is of the requests that may be spilled."""

    name: str
    pools: tuple[PoolPlan, ...]
    ttft_slo_s: float = 2.0
    tpot_slo_s: float = 0.1
    deferrable_s: Mapping[str, float] = field(default_factory=dict)
    student: Student | None = None


@dataclass(slots=True)
class PoolMemory:
    """What has been learned of a pool. ``target``: as decided last; None: nothing has been.
    ``known``: since when each replica has been seen to serve; ``interrupted``: those of them that
    have had a notice. ``prefilling``: as many as the last round wanted to only compute prompts; 0
    where it wanted no split."""

    fit: CapacityFit
    start: StartUp
    clock: StartClock = field(default_factory=StartClock)
    target: int | None = None
    known: dict[str, float] = field(default_factory=dict)
    interruptions: Interruptions = field(default_factory=Interruptions)
    interrupted: list[str] = field(default_factory=list)
    prefilling: int = 0


class Collector:
    """Keeps the last reports of each gateway, so far back as rates are taken."""

    def __init__(self, window_s: float = _WINDOW_S) -> None:
        self._window_s = window_s
        self._told: dict[str, list[GatewayTold]] = {}
        self._done: dict[str, tuple[float, ReplicaTold]] = {}

    def take(self, reports: Iterable[GatewayTold], now_s: float) -> bool:
        """Note new reports; False while no gateway has told anything lately."""
        for told in reports:
            if now_s - told.at_s > STALE_S:
                continue
            kept = self._told.setdefault(told.gateway, [])
            if not kept or told.at_s > kept[-1].at_s:
                kept.append(told)
            while len(kept) > 2 and kept[1].at_s <= told.at_s - self._window_s:
                del kept[0]
        for name in [n for n, kept in self._told.items() if now_s - kept[-1].at_s > STALE_S]:
            del self._told[name]
        return bool(self._told)

    def demand(self, plan: ModelPlan, now_s: float) -> dict[str, Demand]:
        """Of each class of a model."""
        parts: dict[str, list[_Part]] = {}
        for kept in self._told.values():
            for name, part in _parts(plan.name, kept, now_s):
                parts.setdefault(name, []).append(part)
        return {
            name: _sum(each, plan.deferrable_s.get(name, 0.0))
            for name, each in sorted(parts.items())
        }

    def replicas(self, model: str) -> dict[str, tuple[float, ReplicaTold]]:
        """When each replica was told of last, and what; one that any gateway reaches is reached."""
        found: dict[str, tuple[float, ReplicaTold]] = {}
        for kept in self._told.values():
            told = kept[-1]
            seen = told.models.get(model)
            for replica, each in (seen.replicas if seen else {}).items():
                before = found.get(replica)
                if before is None or before[0] < told.at_s:
                    found[replica] = (told.at_s, each)
        return found

    def generating(self, model: str) -> int:
        """Answers that gateways have under way. Those on a replica that is leaving count too."""
        seen = (kept[-1].models.get(model) for kept in self._told.values())
        return sum(told.generating for told in seen if told is not None)

    def work(self, model: str) -> list[tuple[str, Observed]]:
        """Of each warm replica what it has done since it was last asked here, with its pool."""
        found = []
        seen = self.replicas(model)
        for replica, (at_s, now) in seen.items():
            before = self._done.get(replica)
            if before is None:
                self._done[replica] = (at_s, now)
                continue
            since_s, then = before
            if at_s - since_s < 2.0:
                continue
            self._done[replica] = (at_s, now)
            if now.steps >= then.steps and since_s - now.started_s > _WARM_S:
                done = Observed(
                    now.steps - then.steps,
                    now.prefill_tokens - then.prefill_tokens,
                    now.decode_tokens - then.decode_tokens,
                    now.busy_s - then.busy_s,
                )
                found.append((now.pool, done))
        return found

    def forget(self, replicas: Iterable[str]) -> None:
        """They are gone."""
        for replica in replicas:
            self._done.pop(replica, None)


@dataclass(frozen=True, slots=True)
class _Part:
    """One gateway's part of a class' demand: counts of a span of time, and what waits now."""

    span_s: float
    more: ClassTold
    age_s: float


def _parts(model: str, kept: Sequence[GatewayTold], now_s: float) -> Iterable[tuple[str, _Part]]:
    last = kept[-1]
    seen = last.models.get(model)
    if seen is None:
        return
    # A gateway that has told once counts from its start.
    first = kept[0] if len(kept) > 1 else None
    span_s = max(1.0, last.at_s - (first.at_s if first else last.began_s))
    before = first.models.get(model) if first else None
    for name, told in seen.classes.items():
        then = before.classes.get(name, ClassTold()) if before else ClassTold()
        yield name, _Part(span_s, _difference(told, then), now_s - last.at_s)


def _difference(now: ClassTold, then: ClassTold) -> ClassTold:
    return ClassTold(
        now.arrivals - then.arrivals,
        now.prompt_tokens - then.prompt_tokens,
        now.computed_tokens - then.computed_tokens,
        now.output_tokens - then.output_tokens,
        [a - b for a, b in zip(now.ttft, then.ttft, strict=True)],
        [a - b for a, b in zip(now.tpot, then.tpot, strict=True)],
        now.ttft_judged - then.ttft_judged,
        now.ttft_met - then.ttft_met,
        now.tpot_judged - then.tpot_judged,
        now.tpot_met - then.tpot_met,
        now.waiting_requests,
        now.waiting_tokens,
        now.waiting_output_tokens,
        now.oldest_wait_s,
        now.may_spill - then.may_spill,
        now.spilt - then.spilt,
        now.generating,
    )


def _sum(parts: Sequence[_Part], deferrable_s: float) -> Demand:
    told = [part.more for part in parts]
    ttft = [sum(each) for each in zip(*(t.ttft for t in told), strict=True)]
    tpot = [sum(each) for each in zip(*(t.tpot for t in told), strict=True)]
    waiting = sum(t.waiting_requests for t in told)
    oldest_s = max(p.more.oldest_wait_s + p.age_s if p.more.waiting_requests else 0 for p in parts)
    # The student's requests would be the model's: as large as those that it has.
    arrived, spilt = sum(t.arrivals for t in told), max(0, sum(t.spilt for t in told))
    whole = 1 + spilt / arrived if arrived else 1.0
    return Demand(
        arrivals_per_s=whole * sum(p.more.arrivals / p.span_s for p in parts),
        prompt_tokens_per_s=whole * sum(p.more.prompt_tokens / p.span_s for p in parts),
        computed_tokens_per_s=whole * sum(p.more.computed_tokens / p.span_s for p in parts),
        output_tokens_per_s=whole * sum(p.more.output_tokens / p.span_s for p in parts),
        waiting_requests=waiting,
        waiting_tokens=sum(t.waiting_tokens for t in told),
        waiting_output_tokens=sum(t.waiting_output_tokens for t in told),
        oldest_wait_s=oldest_s,
        ttft_p90_s=quantile_s(ttft, 0.9),
        tpot_p90_s=quantile_s(tpot, 0.9),
        ttft_met=_share(sum(t.ttft_met for t in told), sum(t.ttft_judged for t in told)),
        tpot_met=_share(sum(t.tpot_met for t in told), sum(t.tpot_judged for t in told)),
        deferrable_s=deferrable_s,
        may_spill_per_s=sum(p.more.may_spill / p.span_s for p in parts),
        generating=sum(t.generating for t in told),
    )


def _share(met: int, judged: int) -> float:
    return met / judged if judged else 1.0


def pool_state(
    plan: PoolPlan,
    memory: PoolMemory,
    replicas: Sequence[ReplicaTold],
    tpot_slo_s: float,
    now_s: float,
) -> PoolState:
    """A pool as it is now; ``replicas``: those of it that gateways know."""
    base = plan.state
    ready = [r for r in replicas if r.reached and not r.draining]
    draining = sum(r.draining for r in replicas)
    target = len(ready) if memory.target is None else memory.target
    most = max((r.most_running for r in replicas), default=0)
    capacity = base.capacity
    if memory.fit.seen and plan.learns:
        capacity = memory.fit.capacity(tpot_slo_s, most)
    return PoolState(
        name=base.name,
        capacity=Capacity(
            capacity.prefill_tokens_per_s,
            capacity.decode_tokens_per_s,
            base.capacity.usable,
            memory.fit.error,
        ),
        usd_per_hour=base.usd_at(now_s),
        role=base.role,
        accelerator=base.accelerator,
        region=base.region,
        market=base.market,
        ready=len(ready),
        starting=max(0, target - len(ready)),
        draining=draining,
        least=base.least,
        most=base.most,
        running_requests=sum(r.running + r.waiting for r in ready),
        kv_use=sum(r.kv_use for r in ready) / len(ready) if ready else 0.0,
        start_s=memory.start.usual_s,
        interruptions_per_hour=memory.interruptions.per_hour,
        splits=base.splits,
        # What was decided holds while replicas change; without that, what they say themselves.
        prefilling=min(memory.prefilling or _computing_prompts(base, ready), len(ready)),
        usd_by_hour=base.usd_by_hour,
    )


def _computing_prompts(base: PoolState, ready: Sequence[ReplicaTold]) -> int:
    """Replicas that only compute prompts for a while, where that is not what their pool is for."""
    return 0 if base.role == "prefill" else sum(r.role == "prefill" for r in ready)


def sampled(history: tuple[Sample, ...], state: ModelState, now_s: float) -> tuple[Sample, ...]:
    """The history with the present, if the last sample is old enough."""
    if history and now_s - history[-1].at_s < _SAMPLE_S:
        return history
    urgent = [d for d in state.classes.values() if not d.deferrable_s]
    computed = sum(d.computed_tokens_per_s for d in urgent)
    output = sum(d.output_tokens_per_s for d in urgent)
    return (*history[-_SAMPLES:], Sample(now_s, computed, output))
