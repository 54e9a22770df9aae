"""From what gateways tell to the number of replicas of each pool: pure but for its memory.

Around any policy stand the same rules: nothing is decided while nobody tells anything; what is
decided stays within the bounds; after a start without a memory nothing shrinks for a minute;
replicas stay while answers are under way that the others could not hold within TPOT, however long
ago they were asked for; for a minute after a notice of interruption nothing shrinks; and what a
policy cannot do (an exception) leaves everything as it is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import msgspec

from weir.autoscaling.capacity import CapacityFit, Interruptions, StartClock, StartUp
from weir.autoscaling.collecting import (
    Collector,
    ModelPlan,
    PoolMemory,
    PoolPlan,
    pool_state,
    sampled,
)
from weir.autoscaling.registry import AutoscalingPolicy
from weir.autoscaling.report import (
    Backlog,
    Decision,
    Demand,
    FleetReport,
    ModelState,
    PoolState,
    Sample,
    Student,
    Targets,
)
from weir.autoscaling.roles import splits
from weir.autoscaling.telling import GatewayTold, PoolFigures, ReplicaTold

_CAUTIOUS_S = 60.0
#: Answers of a machine that is taken away have just moved: so long nothing moves them again.
_SETTLE_S = 60.0
#: A memory that is older says nothing of what is.
_MEMORY_S = 600.0


@dataclass(frozen=True, slots=True)
class Decided:
    """What was decided for one model. ``targets``: by pool, within the bounds; ``before``: the
    targets until now; ``deployments``: the names in Ray Serve by pool. ``spills``: by class, the
    share that goes to the student, of the requests that may. ``prefilling``: by pool whose roles
    follow the demand, the replicas that only compute prompts."""

    model: ModelState
    at_s: float
    targets: Targets
    before: Targets
    decision: Decision
    deployments: Mapping[str, str]
    spills: Mapping[str, float] = field(default_factory=dict)
    prefilling: Mapping[str, int] = field(default_factory=dict)

    @property
    def changes(self) -> bool:
        """Whether a target is another than before."""
        return dict(self.targets) != dict(self.before)

    @property
    def usd_per_hour(self) -> float:
        """What the targets cost."""
        return sum(p.usd_per_hour * self.targets.get(p.name, 0) for p in self.model.pools)


def figures_of(decided: Decided) -> list[PoolFigures]:
    """What metrics tell of a decision."""
    return [
        PoolFigures(
            decided.model.name,
            pool.name,
            decided.targets.get(pool.name, 0),
            decided.targets.get(pool.name, 0) * pool.usd_per_hour,
            pool.capacity.prefill_tokens_per_s,
            pool.capacity.decode_tokens_per_s,
            pool.capacity.error,
            pool.start_s,
            pool.interruptions_per_hour,
        )
        for pool in decided.model.pools
    ]


@dataclass(slots=True)
class _ModelMemory:
    state: Any = None
    history: tuple[Sample, ...] = ()
    pools: dict[str, PoolMemory] = field(default_factory=dict)
    #: Nothing shrinks until then: a machine is being taken away, or was a moment ago.
    settled_s: float = float("-inf")


class Scaler:
    """``plans``: what the settings say of the models that scale. Times are seconds since the
    epoch. :meth:`memory` is to be kept, and given to the next one by :meth:`remember`."""

    def __init__(self, plans: Sequence[ModelPlan], policy: AutoscalingPolicy) -> None:
        self._plans = plans
        self._policy = policy
        self._collector = Collector()
        self._models = {plan.name: _ModelMemory() for plan in plans}
        self._careful_until_s: float | None = None
        self._learned_s: float | None = None
        self._backlogs: Mapping[str, Backlog] = {}

    def decide(
        self,
        reports: Sequence[GatewayTold],
        now_s: float,
        backlogs: Mapping[str, Backlog] | None = None,
    ) -> list[Decided]:
        """One round; nothing where no gateway has told anything lately. ``backlogs``: of batches,
        by model."""
        self._backlogs = backlogs or {}
        if not self._collector.take(reports, now_s):
            return []
        if self._careful_until_s is None:
            self._careful_until_s = now_s + _CAUTIOUS_S
        return [self._decide(plan, now_s) for plan in self._plans]

    def report(self, now_s: float) -> FleetReport:
        """The whole fleet, as it was last told of."""
        return FleetReport(now_s, tuple(self._state(plan, now_s) for plan in self._plans))

    def _decide(self, plan: ModelPlan, now_s: float) -> Decided:
        memory = self._models[plan.name]
        self._learn(plan, now_s)
        state = self._state(plan, now_s)
        memory.history = sampled(memory.history, state, now_s)
        state = replace(state, history=memory.history)
        decision = self._policy.decide(state, now_s, memory.state)
        memory.state = decision.state
        before = {
            pool.name: pool.current if (last := memory.pools[pool.name].target) is None else last
            for pool in state.pools
        }
        begins = {pool.state.name: pool.begins_with for pool in plan.pools}
        targets: Targets = {
            pool.name: self._target(pool, begins[pool.name], decision, now_s)
            for pool in state.pools
        }
        if now_s < memory.settled_s:
            targets = {p.name: max(targets[p.name], min(p.most, p.current)) for p in state.pools}
        targets = holding(state, targets)
        for name, target in targets.items():
            pool = memory.pools[name]
            pool.clock.asked(now_s, target - before[name])
            pool.target = target
        deployments = {pool.state.name: pool.deployment for pool in plan.pools if pool.scales}
        most = plan.student.most_share if plan.student is not None else 0.0
        spills = shares_for_student(state, decision.spill_share, most)
        prefilling = splits(state)
        for name, pool in memory.pools.items():
            pool.prefilling = prefilling.get(name, 0)
        decision = _told_roles(decision, prefilling)
        return Decided(state, now_s, targets, before, decision, deployments, spills, prefilling)

    def _target(self, pool: PoolState, begins_with: int, decision: Decision, now_s: float) -> int:
        target = max(pool.least, min(pool.most, decision.targets.get(pool.name, pool.least)))
        careful = self._careful_until_s is not None and now_s < self._careful_until_s
        return max(target, min(pool.most, max(pool.current, begins_with))) if careful else target

    def _state(self, plan: ModelPlan, now_s: float) -> ModelState:
        seen = [each for _, each in self._collector.replicas(plan.name).values()]
        pools = tuple(
            pool_state(
                pool,
                self._pool(plan, pool),
                [each for each in seen if each.pool == pool.state.name or not each.pool],
                plan.tpot_slo_s,
                now_s,
            )
            for pool in plan.pools
        )
        classes = self._collector.demand(plan, now_s)
        return ModelState(
            plan.name,
            classes,
            pools,
            plan.ttft_slo_s,
            plan.tpot_slo_s,
            student=student_for(plan.student, classes),
            generating=self._collector.generating(plan.name),
            backlog=self._backlogs.get(plan.name, Backlog()),
        )

    def _learn(self, plan: ModelPlan, now_s: float) -> None:
        """Capacity from what replicas did, start-up time from those that came."""
        pools = {pool.state.name: self._pool(plan, pool) for pool in plan.pools}
        only = next(iter(pools)) if len(pools) == 1 else ""
        for name, done in self._collector.work(plan.name):
            if (memory := pools.get(name or only)) is not None:
                memory.fit = memory.fit.learned(done)
        seen = self._collector.replicas(plan.name)
        for name, memory in pools.items():
            own = {r: t for r, (_, t) in seen.items() if (t.pool or only) == name and t.reached}
            fresh = [r for r in own if r not in memory.known]
            if memory.known or memory.target is not None:
                for took_s in memory.clock.came([now_s] * len(fresh)):
                    memory.start = memory.start.learned(took_s)
            there = {r: t for r, (_, t) in seen.items() if (t.pool or only) == name}
            if self._interruptions(memory, there, now_s):
                self._models[plan.name].settled_s = now_s + _SETTLE_S
            self._collector.forget([r for r in memory.known if r not in there])
            memory.known = {
                r: memory.known.get(r, now_s) for r in there if r in own or r in memory.known
            }
        self._learned_s = now_s

    def _interruptions(
        self, memory: PoolMemory, there: Mapping[str, ReplicaTold], now_s: float
    ) -> bool:
        """Learns how often machines are taken away; whether one has just had its notice."""
        since_s = now_s - min(60.0, now_s - (self._learned_s or now_s))
        hours = len(memory.known) * (now_s - since_s) / 3600
        noticed = [r for r, told in there.items() if told.interrupted]
        fresh = [r for r in noticed if r not in memory.interrupted]
        memory.interruptions = memory.interruptions.learned(hours, len(fresh))
        memory.interrupted = noticed
        return bool(fresh)

    def _pool(self, plan: ModelPlan, pool: PoolPlan) -> PoolMemory:
        pools = self._models[plan.name].pools
        name = pool.state.name
        if name not in pools:
            pools[name] = _fresh(pool)
        return pools[name]

    def memory(self, now_s: float) -> bytes:
        """Everything that a successor should know."""
        models = {
            name: {
                "state": each.state,
                "history": [asdict(sample) for sample in each.history],
                "pools": {
                    pool: {
                        "fit": asdict(m.fit),
                        "start": asdict(m.start),
                        "asked_s": m.clock.asked_s,
                        "target": m.target,
                        "known": m.known,
                        "interruptions": asdict(m.interruptions),
                        "interrupted": m.interrupted,
                    }
                    for pool, m in each.pools.items()
                },
            }
            for name, each in self._models.items()
        }
        told = {"at_s": now_s, "policy": type(self._policy).__name__, "models": models}
        return msgspec.msgpack.encode(told)

    def remember(self, raw: bytes, reports: Sequence[GatewayTold], now_s: float) -> None:
        """What a predecessor knew, as far as it is still of use: of a platform that has started
        anew since, what was learned, and not how many replicas there were."""
        try:
            told = msgspec.msgpack.decode(raw)
            at_s = told["at_s"]
            fresh = now_s - at_s < _MEMORY_S and any(each.began_s < at_s for each in reports)
            for plan in self._plans:
                if (known := told["models"].get(plan.name)) is not None:
                    same = told["policy"] == type(self._policy).__name__
                    self._recall(plan, known, fresh, same)
        except (msgspec.MsgspecError, KeyError, TypeError, ValueError):
            return  # of another version: one begins anew
        if fresh:
            self._careful_until_s = now_s

    def _recall(self, plan: ModelPlan, known: Any, fresh: bool, same: bool) -> None:
        memory = self._models[plan.name]
        memory.history = tuple(Sample(**each) for each in known["history"])
        if fresh and same:
            memory.state = known["state"]
        for pool in plan.pools:
            if (told := known["pools"].get(pool.state.name)) is None:
                continue
            own = self._pool(plan, pool)
            fit = told["fit"]
            if fit["seen"]:
                own.fit = CapacityFit(
                    tuple(fit["seconds"]),
                    tuple(fit["covariance"]),
                    pool.state.capacity.usable,
                    fit["seen"],
                    fit["error"],
                )
            if told["start"]["seen"]:
                start = {**told["start"], "assumed_s": pool.state.start_s}
                own.start = StartUp(**start)
            lost = {**told["interruptions"], "assumed_per_hour": pool.state.interruptions_per_hour}
            own.interruptions = Interruptions(**lost)
            if fresh:
                own.interrupted = told["interrupted"]
                own.clock = StartClock(told["asked_s"])
                own.target, own.known = told["target"], told["known"]


def student_for(student: Student | None, classes: Mapping[str, Demand]) -> Student | None:
    """The student as the policy is offered it: its share is of all requests that cannot wait, so it
    is less where some of them may not be spilled."""
    if student is None:
        return None
    _, arrive, may = _urgent(classes)
    return replace(student, most_share=student.most_share * min(1.0, may / arrive if arrive else 0))


def shares_for_student(model: ModelState, spill_share: float, most: float) -> dict[str, float]:
    """What ``spill_share`` of all requests that cannot wait is of those that may be spilled, by
    class; at most ``most``. Classes that may wait do that instead."""
    urgent, arrive, may = _urgent(model.classes)
    if not may or spill_share <= 0:
        return {}
    share = min(most, spill_share * arrive / may)
    return {name: share for name, each in urgent.items() if share and each.may_spill_per_s}


def _urgent(classes: Mapping[str, Demand]) -> tuple[dict[str, Demand], float, float]:
    """The classes that cannot wait, their requests a second, and how many of these may be
    spilled."""
    urgent = {name: each for name, each in classes.items() if not each.deferrable_s}
    arrive = sum(each.arrivals_per_s for each in urgent.values())
    return urgent, arrive, sum(each.may_spill_per_s for each in urgent.values())


def holding(model: ModelState, targets: Targets) -> Targets:
    """The targets, but as many replicas stay as the answers under way need: a policy that counts
    what arrives does not see long ones. Replicas that are still starting hold none, and answers on
    a replica that leaves need a place as well. Of the pools that shrink, the cheapest keep
    theirs. Where none is ready, one is started: Serve starts none by itself for an answer that has
    lost its own. Answers of classes that may wait keep nobody: what there is no place for goes on
    when there is one."""
    running = max(model.generating, sum(pool.running_requests for pool in model.pools))
    patient = sum(each.generating for each in model.classes.values() if each.deferrable_s)
    urgent, held = running - patient, dict(targets)
    for pool in sorted(model.pools, key=lambda each: each.usd_per_hour):
        at_a_time = max(1.0, pool.capacity.decode_tokens_per_s * model.tpot_slo_s)
        while held[pool.name] < min(pool.ready, pool.most):
            missing = urgent - _held(model, held)
            if missing <= 0:
                break
            more = math.ceil(missing / at_a_time)
            held[pool.name] = min(pool.ready, pool.most, held[pool.name] + more)
    answering = [pool for pool in model.pools if pool.role != "prefill" and pool.most]
    if running > 0 and answering and not any(held[pool.name] for pool in answering):
        held[min(answering, key=lambda each: each.usd_per_hour).name] = 1
    return held


def _told_roles(decision: Decision, prefilling: Mapping[str, int]) -> Decision:
    """The explanation has the split, too."""
    if not prefilling:
        return decision
    told = {f"prefill_replicas_{name}": float(count) for name, count in prefilling.items()}
    explanation = decision.explanation
    return replace(decision, explanation=replace(explanation, seen={**explanation.seen, **told}))


def _held(model: ModelState, targets: Targets) -> float:
    return sum(
        max(0, min(pool.ready - pool.prefilling, targets[pool.name]))
        * max(1.0, pool.capacity.decode_tokens_per_s * model.tpot_slo_s)
        for pool in model.pools
        if pool.role != "prefill"
    )


def _fresh(pool: PoolPlan) -> PoolMemory:
    assumed = Interruptions(pool.state.interruptions_per_hour)
    fit = CapacityFit.assumed(pool.state.capacity)
    return PoolMemory(fit, StartUp(pool.state.start_s), interruptions=assumed)
