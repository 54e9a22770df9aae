"""What another policy would have decided, from the decisions that are kept.

The policy sees the demand as it was. Of replicas it sees those that it would have had itself: they
are ready once their pool's start-up time has passed. What requests would have waited, and how long,
is not known from that; ``weir autoscale simulate`` computes it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from weir.autoscaling.keeping import Kept
from weir.autoscaling.registry import AutoscalingPolicy
from weir.autoscaling.report import ModelState, PoolState, Sample

#: A gap without decisions is a platform that was down.
_GAP_S = 300.0
_SAMPLES = 2 * 1440


@dataclass(frozen=True, slots=True)
class Step:
    """One kept decision, and what the other policy would have said. Costs in USD per hour."""

    at_s: float
    model: str
    targets: Mapping[str, int]
    other: Mapping[str, int]
    usd_per_hour: float
    other_usd_per_hour: float
    because: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """Of one model over all steps. ``usd``, ``other_usd``: what the targets cost in that time;
    ``changes``, ``other_changes``: how often they became others; ``differing_s``: so long the two
    differed."""

    model: str
    seconds: float
    usd: float
    other_usd: float
    changes: int
    other_changes: int
    differing_s: float


class _Course:
    """One model under the other policy."""

    def __init__(self) -> None:
        self.state: Any = None
        self.history: tuple[Sample, ...] = ()
        self.targets: Mapping[str, int] | None = None
        #: When each pool's replicas that are not ready yet will be.
        self.coming: dict[str, list[float]] = {}

    def decide(self, policy: AutoscalingPolicy, kept: Kept) -> tuple[Mapping[str, int], str]:
        if self.targets is None:
            self.targets = dict(kept.targets_before)
        state = self._seen(kept.state, kept.at_s)
        decision = policy.decide(state, kept.at_s, self.state)
        self.state = decision.state
        wanted = {
            pool.name: max(pool.least, min(pool.most, decision.targets.get(pool.name, pool.least)))
            for pool in state.pools
        }
        for pool in state.pools:
            self._ask(pool, wanted[pool.name] - self.targets.get(pool.name, 0), kept.at_s)
        self.targets = wanted
        return wanted, decision.explanation.because

    def _seen(self, state: ModelState, at_s: float) -> ModelState:
        urgent = [d for d in state.classes.values() if not d.deferrable_s]
        sample = Sample(
            at_s,
            sum(d.computed_tokens_per_s for d in urgent),
            sum(d.output_tokens_per_s for d in urgent),
        )
        self.history = (*self.history[-_SAMPLES:], sample)
        pools = tuple(self._pool(pool, at_s) for pool in state.pools)
        return replace(state, pools=pools, history=self.history)

    def _pool(self, pool: PoolState, at_s: float) -> PoolState:
        assert self.targets is not None
        coming = [each for each in self.coming.get(pool.name, ()) if each > at_s]
        self.coming[pool.name] = coming
        target = self.targets.get(pool.name, 0)
        starting = min(target, len(coming))
        return replace(pool, ready=target - starting, starting=starting)

    def _ask(self, pool: PoolState, more: int, at_s: float) -> None:
        coming = self.coming.setdefault(pool.name, [])
        if more > 0:
            coming += [at_s + pool.start_s] * more
        elif more < 0:
            del coming[more:]


def replay(policy: AutoscalingPolicy, kept: Iterable[Kept]) -> list[Step]:
    """``kept``: oldest first, of any models."""
    courses: dict[str, _Course] = {}
    steps = []
    for each in kept:
        course = courses.setdefault(each.model, _Course())
        other, because = course.decide(policy, each)
        prices = {pool.name: pool.usd_per_hour for pool in each.state.pools}
        usd = sum(prices.get(pool, 0.0) * count for pool, count in other.items())
        own = each.usd_per_hour
        steps.append(Step(each.at_s, each.model, each.targets, other, own, usd, because))
    return steps


def compared(steps: Iterable[Step]) -> list[Comparison]:
    """What the two come to, by model. Each decision holds until the next one."""
    by_model: dict[str, list[Step]] = {}
    for step in steps:
        by_model.setdefault(step.model, []).append(step)
    return [_compared(model, own) for model, own in sorted(by_model.items())]


def _compared(model: str, steps: list[Step]) -> Comparison:
    seconds = usd = other_usd = differing_s = 0.0
    changes = other_changes = 0
    for step, following in pairwise(steps):
        span_s = following.at_s - step.at_s
        if span_s > _GAP_S:
            continue
        seconds += span_s
        usd += step.usd_per_hour * span_s / 3600
        other_usd += step.other_usd_per_hour * span_s / 3600
        differing_s += span_s if dict(step.targets) != dict(step.other) else 0.0
        changes += dict(step.targets) != dict(following.targets)
        other_changes += dict(step.other) != dict(following.other)
    return Comparison(model, seconds, usd, other_usd, changes, other_changes, differing_s)
