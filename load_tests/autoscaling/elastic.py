"""Autoscaling request by request: the same policies over the simulator's engines, behind the real
router and admission. A thousand times dearer than the fluid model, so it only checks that one, on
sampled stretches of the reported week.

Urgent work on one kind of replica. Replicas that are to go leave the router at once and end what
they have begun, which drain by migration would move.
"""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from load_tests.autoscaling.engines import (
    BLOCK_TOKENS,
    RooflineTiming,
    drawn_request,
    engine_config,
)
from load_tests.autoscaling.fleet import Outcome, PoolKind
from load_tests.autoscaling.fluid import HISTORY, SAMPLE_S, SMOOTHING_S
from load_tests.autoscaling.traces import Ticks
from load_tests.report import percentile
from load_tests.sim.figures import Slo
from load_tests.sim.request import SimRequest
from load_tests.sim.system import Fleet, PolledStats
from load_tests.sim.weir_system import WeirSystem, routing_profile
from load_tests.sim.world import FleetConfig
from load_tests.sim.world import World as RequestWorld
from load_tests.traces.schema import Trace, TraceRequest
from router.types import ReplicaInfo
from weir.autoscaling.registry import AutoscalingPolicy
from weir.autoscaling.report import Demand, ModelState, PoolState, Sample
from weir.planner.serving import Engine, Lengths

_SEEN_S = 60.0


@dataclass(frozen=True, slots=True)
class Stretch:
    """Requests one by one, and the same added up for the fluid model."""

    requests: tuple[TraceRequest, ...]
    ticks: Ticks


def drawn(ticks: Ticks, thin: float, variation: float, seed: int) -> Stretch:
    """A share ``thin`` of the urgent work of ``ticks``, with drawn lengths and times."""
    rng, requests = random.Random(seed), []
    sums = np.zeros((3, len(ticks)))
    owed = 0.0
    for number in range(len(ticks)):
        count = float(ticks.urgent_requests[number])
        owed += count * thin
        if owed < 1 or not count:
            continue
        lengths = Lengths(
            max(1.0, float(ticks.urgent_prompts[number]) / count),
            max(1.0, float(ticks.urgent_outputs[number]) / count),
            0.0,
            variation,
        )
        for _ in range(int(owed)):
            at_s = (number + rng.random()) * ticks.tick_s
            request = drawn_request(at_s, lengths, rng)
            requests.append(request)
            sums[:, number] += (1, request.prompt_tokens, request.output_tokens)
        owed -= int(owed)
    requests.sort(key=lambda request: request.arrival_s)
    nothing = np.zeros(len(ticks))
    return Stretch(
        tuple(requests), Ticks(ticks.tick_s, sums[0], sums[1], sums[2], nothing, nothing, nothing)
    )


class ElasticWeir(WeirSystem):
    """The gateway's dispatcher over replicas that come and go as a policy says."""

    def __init__(
        self,
        kind: PoolKind,
        slo: Slo,
        policy: AutoscalingPolicy,
        at_first: int,
        seed: int,
        decide_s: float = 30.0,
    ) -> None:
        super().__init__(routing_profile(slo))
        self._kind, self._policy, self._slo = kind, policy, slo
        self._at_first, self._decide_s, self._rng = at_first, decide_s, random.Random(seed)
        self._state: Any = None
        self._in = [0.0, 0.0, 0.0]
        self._rates = [0.0, 0.0, 0.0]
        self._history: deque[Sample] = deque(maxlen=HISTORY)
        self._sampled = [0.0, 0.0]
        self._first: deque[tuple[float, float]] = deque()
        self._done: deque[tuple[float, float]] = deque()
        self._waiting: dict[int, SimRequest] = {}
        self._members: list[int] = []
        self._starting: list[float] = []
        self._leaving = 0
        self.replica_s = 0.0
        self.until_s = 0.0

    def start(self, fleet: Fleet) -> None:
        """All engines are there; the router knows of those that are ready."""
        super().start(fleet)
        self._all = list(self.router.members)
        self._free = deque(range(len(fleet.engines)))
        self._members = [self._free.popleft() for _ in range(self._at_first)]
        self._tell()
        fleet.after(self._decide_s, self._decide)

    def _tell(self) -> None:
        infos: list[ReplicaInfo] = [self._all[index] for index in self._members]
        self.router.set_replicas(infos)
        self.dispatcher.wake()

    def arrive(self, request: SimRequest) -> None:
        """Counted at arrival."""
        prompt, output = request.trace.prompt_tokens, request.trace.output_tokens
        for index, amount in enumerate((1.0, prompt, output)):
            self._in[index] += amount
        self._waiting[request.index] = request
        super().arrive(request)

    def first_token(self, request: SimRequest) -> None:
        """No longer waiting."""
        self._waiting.pop(request.index, None)
        self._first.append((self._fleet.now_s, request.ttft_s or 0.0))
        super().first_token(request)

    def finished(self, request: SimRequest) -> None:
        """Its TPOT is known."""
        self._done.append((self._fleet.now_s, request.tpot_s or 0.0))
        super().finished(request)

    def stats(self, stats: PolledStats) -> None:
        """Of members only."""
        if stats.replica in self._members:
            super().stats(stats)

    def kv_events(self, replica: int, ops: Any) -> None:
        """Of members only."""
        if replica in self._members:
            super().kv_events(replica, ops)

    def _decide(self, _: Any) -> None:
        now_s, every_s = self._fleet.now_s, self._decide_s
        if now_s >= self.until_s:
            return
        # The first decision knows no earlier rate.
        new = 1 - 0.5 ** (every_s / SMOOTHING_S) if any(self._rates) else 1.0
        for index, amount in enumerate(self._in):
            self._rates[index] += new * (amount / every_s - self._rates[index])
        for index in (0, 1):
            self._sampled[index] += self._in[index + 1]
        self._in = [0.0, 0.0, 0.0]
        if now_s % SAMPLE_S < every_s:
            self._history.append(Sample(now_s, *(amount / SAMPLE_S for amount in self._sampled)))
            self._sampled = [0.0, 0.0]
        decision = self._policy.decide(self._report(now_s), now_s, self._state)
        self._state = decision.state
        self._scale(decision.targets.get(self._kind.state.name, 0), now_s)
        paid = len(self._members) + len(self._starting) + self._leaving
        self.replica_s += paid * every_s
        self._leaving = 0
        self._fleet.after(every_s, self._decide)

    def _scale(self, target: int, now_s: float) -> None:
        change = target - len(self._members) - len(self._starting)
        if change > 0:
            lag_s = self._kind.state.start_s * self._rng.uniform(0.9, 1.1)
            for _ in range(min(change, len(self._free) - len(self._starting))):
                self._starting.append(now_s + lag_s)
                self._fleet.after(lag_s, self._ready, now_s + lag_s)
        for _ in range(-change):
            if self._starting:
                self._starting.remove(max(self._starting))
            elif len(self._members) > 1:
                self._free.append(self._members.pop())
                self._leaving += 1
        if change < 0:
            self._tell()

    def _ready(self, at_s: float) -> None:
        if at_s in self._starting:
            self._starting.remove(at_s)
            self._members.append(self._free.popleft())
            self._tell()

    def _report(self, now_s: float) -> ModelState:
        for seen in (self._first, self._done):
            while seen and seen[0][0] < now_s - _SEEN_S:
                seen.popleft()
        late_s = [now_s - r.arrival_s for r in self._waiting.values()]
        ttft = [value for _, value in self._first] + [w for w in late_s if w > self._slo.ttft_s]
        urgent = Demand(
            self._rates[0],
            self._rates[1],
            self._rates[2],
            sum(1 for r in self._waiting.values() if r.dispatched_s is None),
            sum(r.trace.prompt_tokens for r in self._waiting.values()),
            sum(r.trace.output_tokens for r in self._waiting.values() if r.dispatched_s is None),
            max(late_s, default=0.0),
            percentile(ttft, 90) or 0.0,
            percentile([value for _, value in self._done], 90) or 0.0,
        )
        slo = (self._slo.ttft_s, self._slo.tpot_s)
        history = tuple(self._history)
        return ModelState("model", {"interactive": urgent}, (self._pool(),), *slo, history)

    def _pool(self) -> PoolState:
        engines = [self._fleet.engines[index] for index in self._members]
        used = sum(engine.pool.used / engine.config.blocks for engine in engines)
        return replace(
            self._kind.state,
            ready=len(engines),
            starting=len(self._starting),
            draining=self._leaving,
            running_requests=sum(engine.running + engine.waiting for engine in engines),
            kv_use=used / max(1, len(engines)),
        )


def run_requests(
    kind: PoolKind,
    engine: Engine,
    lengths: Lengths,
    slo: Slo,
    policy: AutoscalingPolicy,
    stretch: Stretch,
    at_first: int,
    seed: int,
    engines: int = 40,
) -> Outcome:
    """The outcome as the fluid model has it; requests of the whole stretch are judged."""
    system = ElasticWeir(kind, slo, policy, at_first, seed)
    system.until_s = len(stretch.ticks) * stretch.ticks.tick_s
    config = FleetConfig(
        engines, engine_config(engine, lengths), RooflineTiming.of(engine.roofline)
    )
    world = RequestWorld(system, config, seed)
    world.run_open(Trace("stretch", "drawn", BLOCK_TOKENS, stretch.requests))
    found = Outcome()
    found.urgent = float(len(world.requests))
    found.urgent_met = float(sum(map(slo.met, world.requests)))
    found.replica_hours = system.replica_s / 3600
    found.usd = found.replica_hours * kind.state.usd_per_hour
    found.seconds = system.until_s
    return found
