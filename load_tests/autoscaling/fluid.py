"""A fleet as a fluid: tokens arrive, replicas work them off, a policy says how many there are.

In each tick prompts and answers take their share of the ready replicas' time, urgent work first and
batch work with what is left. What does not fit waits. Requests are within their limits as the
replica's table says at that load, and none are whose wait alone is longer than the limit. Replicas
that were asked for serve after ``start_s``; those to go are drained by migration, within
``drain_s``; spot replicas are taken away after a notice, at random and now and then all of a place
at once. Every replica is paid from the time that it is asked for.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from load_tests.autoscaling.engines import LoadRow, ReplicaTable
from load_tests.autoscaling.traces import Ticks
from weir.autoscaling.registry import AutoscalingPolicy
from weir.autoscaling.report import (
    Demand,
    ModelState,
    PoolState,
    Sample,
)

_SAMPLE_S = 120.0
_HISTORY = 1500
_SMOOTHING_S = 60.0


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
    ``spill_share``: of all urgent requests, that a student may answer which would be late."""

    pools: tuple[PoolKind, ...]
    ttft_slo_s: float
    tpot_slo_s: float
    decide_s: float = 60.0
    drain_s: float = 30.0
    batch_within_s: float = 6 * 3600.0
    spill_share: float = 0.0
    seed: int = 7


@dataclass(slots=True)
class Outcome:
    """Of one run. ``met``: share of urgent requests within TTFT and TPOT. ``flaps``: changes of
    direction. ``late_batch``: share of batch tokens done after their time."""

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
    replicas: list[int] = field(default_factory=list)

    @property
    def met(self) -> float:
        """In [0, 1]; 1 without urgent requests."""
        return self.urgent_met / self.urgent if self.urgent else 1.0


class Fluid:
    """One run over one trace with one policy."""

    def __init__(self, world: World, policy: AutoscalingPolicy, ticks: Ticks) -> None:
        self._world, self._policy, self._ticks = world, policy, ticks
        self._rng = random.Random(world.seed)
        self._ready = {kind.state.name: 0 for kind in world.pools}
        self._starting: dict[str, list[float]] = {kind.state.name: [] for kind in world.pools}
        self._leaving: list[tuple[float, str]] = []
        self._waiting = [0.0, 0.0, 0.0]  # urgent requests, prompt tokens, output tokens
        self._batch: deque[list[float]] = deque()  # arrival, requests, prompt and output tokens
        self._history: deque[Sample] = deque(maxlen=_HISTORY)
        self._rates = [0.0] * 6
        self._row = LoadRow(0.0, 0.0, 0.0, 1.0, 1.0, 0.0)
        self._state: object = None
        self._direction = 0
        self._sampled = [0.0, 0.0, 0.0]
        self.outcome = Outcome()

    def run(self, at_first: int) -> Outcome:
        """From ``at_first`` ready replicas of the first pool on."""
        first = self._world.pools[0].state.name
        self._ready[first] = at_first
        tick_s, ticks = self._ticks.tick_s, self._ticks
        every = max(1, round(self._world.decide_s / tick_s))
        columns = zip(
            ticks.urgent_requests.tolist(),
            ticks.urgent_prompts.tolist(),
            ticks.urgent_outputs.tolist(),
            ticks.batch_requests.tolist(),
            ticks.batch_prompts.tolist(),
            ticks.batch_outputs.tolist(),
            strict=True,
        )
        for number, arrived in enumerate(columns):
            now_s = number * tick_s
            self._replicas_change(now_s, tick_s)
            self._arrive(now_s, arrived)
            self._serve(now_s, tick_s, arrived[0])
            self._pay(tick_s)
            if number % every == 0:
                self._decide(now_s)
            if number % 360 == 0:
                self.outcome.replicas.append(sum(self._ready.values()))
        self.outcome.seconds = len(ticks) * tick_s
        return self.outcome

    def _replicas_change(self, now_s: float, tick_s: float) -> None:
        for kind in self._world.pools:
            name = kind.state.name
            begun = self._starting[name]
            while begun and begun[0] <= now_s:
                begun.pop(0)
                self._ready[name] += 1
            if kind.state.market == "spot" and self._ready[name]:
                self._interrupt(kind, now_s, tick_s)
        self._leaving = [(at, name) for at, name in self._leaving if at > now_s]

    def _interrupt(self, kind: PoolKind, now_s: float, tick_s: float) -> None:
        """A notice: the streams move within it, so the replica serves nothing new from then on."""
        name, hour = kind.state.name, tick_s / 3600
        lost = sum(
            self._rng.random() < kind.state.interruptions_per_hour * hour
            for _ in range(self._ready[name])
        )
        if self._rng.random() < kind.outages_per_day * tick_s / 86_400:
            lost = self._ready[name]
        self._ready[name] -= lost
        self.outcome.interrupted += lost
        self._leaving += [(now_s + kind.notice_s, name)] * lost

    def _arrive(self, now_s: float, arrived: Sequence[float]) -> None:
        requests, prompts, outputs, batch, batch_prompts, batch_outputs = arrived
        for index, amount in enumerate((requests, prompts, outputs)):
            self._waiting[index] += amount
            self._sampled[index] += amount
        if batch:
            self._batch.append([now_s, batch, batch_prompts, batch_outputs])
        keep = 0.5 ** (self._ticks.tick_s / _SMOOTHING_S) if now_s else 0.0
        for index, amount in enumerate(arrived):
            rate = amount / self._ticks.tick_s
            self._rates[index] = keep * self._rates[index] + (1 - keep) * rate
        if (now_s + self._ticks.tick_s) % _SAMPLE_S < self._ticks.tick_s:
            rates = [amount / _SAMPLE_S for amount in self._sampled]
            self._history.append(Sample(now_s, rates[1], rates[2]))
            self._sampled = [0.0, 0.0, 0.0]

    def _serve(self, now_s: float, tick_s: float, arrived: float) -> None:
        prompt_rate, output_rate, usable = self._speeds()
        requests, prompts, outputs = self._waiting
        if not prompt_rate:
            self._judge(0.0, arrived, tick_s, None)
            return
        needed = prompts / prompt_rate + outputs / output_rate  # seconds of the whole fleet
        before = max(0.0, needed - self._seconds_of(arrived, requests, needed))
        done = min(1.0, tick_s / needed) if needed > 0 else 1.0
        load = min(1.0, needed / tick_s)
        self._waiting = [amount * (1 - done) for amount in self._waiting]
        self._row = self._fleet_row(load)
        self._judge(before, arrived, tick_s, self._row)
        # Batch work fills replicas up to the load at which urgent work keeps its limits.
        self._work_off_batch(now_s, max(0.0, usable * tick_s - needed), prompt_rate, output_rate)

    def _seconds_of(self, arrived: float, requests: float, needed: float) -> float:
        return needed * arrived / requests if requests > 0 else 0.0

    def _judge(self, waited_s: float, arrived: float, tick_s: float, row: LoadRow | None) -> None:
        out = self.outcome
        met = 0.0
        if row is not None and waited_s <= self._world.ttft_slo_s:
            met = row.met
        out.urgent += arrived
        late = (1 - met) * arrived
        spilt = min(late, max(0.0, self._world.spill_share * out.urgent - out.spilt))
        if spilt > 0:
            out.spilt += spilt
            met += spilt / arrived
        out.urgent_met += met * arrived
        if arrived and met < 0.95:
            out.minutes_lost += tick_s / 60

    def _work_off_batch(
        self, now_s: float, left_s: float, prompt_rate: float, output_rate: float
    ) -> None:
        while self._batch and left_s > 0:
            at_s, _, prompts, outputs = self._batch[0]
            needs_s = prompts / prompt_rate + outputs / output_rate
            done = min(1.0, left_s / needs_s) if needs_s > 0 else 1.0
            left_s -= needs_s * done
            tokens = (prompts + outputs) * done
            self.outcome.batch += tokens
            if now_s - at_s > self._world.batch_within_s:
                self.outcome.late_batch += tokens
            if done < 1:
                self._batch[0][1:] = [amount * (1 - done) for amount in self._batch[0][1:]]
                break
            self._batch.popleft()

    def _speeds(self) -> tuple[float, float, float]:
        """Tokens per second of prompts alone, of answers alone, and the usable share of time."""
        prompts = outputs = usable = 0.0
        for kind in self._world.pools:
            count, capacity = self._ready[kind.state.name], kind.table.capacity
            prompts += count * capacity.prefill_tokens_per_s
            outputs += count * capacity.decode_tokens_per_s
            usable += count * capacity.decode_tokens_per_s * capacity.usable
        return prompts, outputs, usable / outputs if outputs else 0.0

    def _fleet_row(self, load: float) -> LoadRow:
        """The router keeps replicas equally loaded: the mean over pools, by what they do."""
        weights, rows = [], []
        for kind in self._world.pools:
            count = self._ready[kind.state.name]
            if count:
                weights.append(count * kind.table.saturated_per_s)
                rows.append(kind.table.at(load))
        total = sum(weights)
        parts = [(weight / total, row) for weight, row in zip(weights, rows, strict=True)]
        return LoadRow(
            load,
            max(row.ttft_p90_s for row in rows),
            max(row.tpot_s for row in rows),
            sum(w * row.ttft_met for w, row in parts),
            sum(w * row.tpot_met for w, row in parts),
            sum(w * row.streams for w, row in parts),
        )

    def _pay(self, tick_s: float) -> None:
        hour = tick_s / 3600
        for kind in self._world.pools:
            name = kind.state.name
            leaving = sum(gone == name for _, gone in self._leaving)
            count = self._ready[name] + len(self._starting[name]) + leaving
            self.outcome.replica_hours += count * hour
            self.outcome.usd += count * kind.state.usd_per_hour * hour

    def _decide(self, now_s: float) -> None:
        model = self._report(now_s)
        decision = self._policy.decide(model, now_s, self._state)
        self._state = decision.state
        change = 0
        for kind in self._world.pools:
            change += self._scale(kind, decision.targets.get(kind.state.name, 0), now_s)
        if change:
            direction = 1 if change > 0 else -1
            self.outcome.changes += 1
            self.outcome.flaps += direction == -self._direction
            self._direction = direction

    def _scale(self, kind: PoolKind, target: int, now_s: float) -> int:
        name = kind.state.name
        target = max(kind.state.least, min(kind.state.most, target))
        begun, change = self._starting[name], target - self._ready[name] - len(self._starting[name])
        if change > 0:
            lag_s = kind.state.start_s * self._rng.uniform(0.9, 1.1)
            begun += [now_s + lag_s] * change
            begun.sort()
        for _ in range(-change):
            if begun:
                begun.pop()
            else:
                self._ready[name] -= 1
                self._leaving.append((now_s + self._world.drain_s, name))
        return change

    def _report(self, now_s: float) -> ModelState:
        requests, prompts, outputs = self._waiting
        row, rates = self._row, self._rates
        slow_s = row.ttft_p90_s + self._queue_s()
        urgent = Demand(
            rates[0],
            rates[1],
            rates[2],
            round(requests),
            prompts,
            outputs,
            self._queue_s(),
            min(slow_s, 600.0),
            min(row.tpot_s, 10.0),
        )
        waiting = [sum(column) for column in zip(*self._batch, strict=True)] or [0.0] * 4
        batch = Demand(
            rates[3],
            rates[4],
            rates[5],
            round(waiting[1]),
            waiting[2],
            waiting[3],
            now_s - self._batch[0][0] if self._batch else 0.0,
            deferrable_s=self._deferrable_s(now_s),
        )
        classes = {"interactive": urgent}
        if self._ticks.batch_requests.any():
            classes["batch"] = batch
        pools = tuple(self._pool_state(kind) for kind in self._world.pools)
        slo = (self._world.ttft_slo_s, self._world.tpot_slo_s)
        return ModelState("model", classes, pools, *slo, tuple(self._history))

    def _deferrable_s(self, now_s: float) -> float:
        """What is left of the oldest work's time, with a margin of half."""
        within_s = self._world.batch_within_s
        oldest_s = now_s - self._batch[0][0] if self._batch else 0.0
        return max(300.0, (within_s - oldest_s) / 2)

    def _queue_s(self) -> float:
        prompt_rate, output_rate, _ = self._speeds()
        if not prompt_rate:
            return 0.0
        return self._waiting[1] / prompt_rate + self._waiting[2] / output_rate

    def _pool_state(self, kind: PoolKind) -> PoolState:
        name, row = kind.state.name, self._row
        ready = self._ready[name]
        streams = kind.table.at(row.load).streams if ready else 0.0
        return replace(
            kind.state,
            capacity=kind.table.capacity,
            ready=ready,
            starting=len(self._starting[name]),
            running_requests=round(streams * ready),
            kv_use=min(1.0, streams / kind.table.room),
        )
