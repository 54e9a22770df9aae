"""A fleet as a fluid: tokens arrive, replicas work them off, a policy says how many there are.

In each tick prompts and answers take their share of the ready replicas' time, urgent work first and
batch work with what is left up to the load that keeps the limits. What does not fit waits. Requests
are within their limits as the replica's measured table says at that load (:mod:`.engines`), and
none are whose wait alone is longer than the limit. Replicas that were asked for serve after
``start_s``; those to go are drained by migration, within ``drain_s``; spot replicas are taken away
after a notice, at random and now and then all of a place at once. Every replica is paid from the
time that it is asked for until it is gone.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from load_tests.autoscaling.batch_work import BatchWork
from load_tests.autoscaling.engines import ReplicaTable
from load_tests.autoscaling.fleet import Moment, Outcome, PoolKind, World
from load_tests.autoscaling.traces import Ticks
from weir.autoscaling.registry import AutoscalingPolicy
from weir.autoscaling.report import Demand, ModelState, PoolState, Sample

SAMPLE_S = 120.0
HISTORY = 1500
SMOOTHING_S = 60.0


@dataclass(slots=True)
class _Speeds:
    """Of the ready replicas together; made anew when their number changes. ``prompts``,
    ``outputs``: tokens per second of either alone. ``weights``: of each table, the share of the
    requests that its replicas take."""

    prompts: float = 0.0
    outputs: float = 0.0
    usable: float = 0.0
    replicas: int = 0
    usd_per_hour: float = 0.0
    weights: list[tuple[float, ReplicaTable]] = field(default_factory=list)


class Fluid:
    """One run over one trace with one policy."""

    def __init__(
        self, world: World, policy: AutoscalingPolicy, ticks: Ticks, every_s: float = 300.0
    ) -> None:
        self._world, self._policy, self._ticks, self._every_s = world, policy, ticks, every_s
        self._rng = random.Random(world.seed)
        self._ready = {kind.state.name: 0 for kind in world.pools}
        self._starting: dict[str, list[float]] = {kind.state.name: [] for kind in world.pools}
        self._leaving: list[tuple[float, str]] = []
        self._waiting = [0.0, 0.0, 0.0]  # urgent requests, prompt tokens, output tokens
        self._batch = BatchWork(world.batch_within_s)
        self._history: deque[Sample] = deque(maxlen=HISTORY)
        self._kept_history: tuple[Sample, ...] = ()
        self._rates = [0.0] * 6
        # TTFT and TPOT p90, share in time, load by urgent work, and with batch work.
        self._latest = (0.0, 0.0, 1.0, 0.0, 0.0)
        self._state: object = None
        self._direction = 0
        self._sampled = [0.0, 0.0]
        self._speeds = _Speeds()
        self._now_s = 0.0
        self._changed = True
        self._has_batch = bool(ticks.batch_requests.any())
        self.outcome = Outcome()

    def run(self, at_first: int) -> Outcome:
        """From ``at_first`` ready replicas of the first pool on."""
        self._ready[self._world.pools[0].state.name] = at_first
        tick_s, ticks, out = self._ticks.tick_s, self._ticks, self.outcome
        every = max(1, round(self._world.decide_s / tick_s))
        per_moment = max(1, round(self._every_s / tick_s))
        columns = zip(*(column.tolist() for column in ticks.columns), strict=True)
        for number, arrived in enumerate(columns):
            now_s = self._now_s = number * tick_s
            if number % per_moment == 0:
                out.moments.append(Moment(now_s))
                self._changed = True  # another hour may have another price
            self._replicas_change(now_s, tick_s)
            self._arrive(now_s, arrived)
            self._serve(now_s, tick_s, arrived[0])
            self._pay(tick_s)
            if number % every == 0:
                self._decide(now_s)
        out.seconds = len(ticks) * tick_s
        self._batch.end(out, out.seconds)
        return out

    def _replicas_change(self, now_s: float, tick_s: float) -> None:
        for kind in self._world.pools:
            name = kind.state.name
            begun = self._starting[name]
            while begun and begun[0] <= now_s:
                begun.pop(0)
                self._ready[name] += 1
                self._changed = True
            if kind.state.market == "spot" and self._ready[name]:
                self._interrupt(kind, now_s, tick_s)
        if self._leaving and min(self._leaving)[0] <= now_s:
            self._leaving = [(at, name) for at, name in self._leaving if at > now_s]
            self._changed = True

    def _interrupt(self, kind: PoolKind, now_s: float, tick_s: float) -> None:
        """A notice: the streams move within it, so the replica serves nothing new from then on."""
        name, chance = kind.state.name, kind.state.interruptions_per_hour * tick_s / 3600
        rng = self._rng
        # Of all replicas at once: the chance of more than one in a tick is next to nothing.
        lost = int(rng.random() < chance * self._ready[name])
        if rng.random() < kind.outages_per_day * tick_s / 86_400:
            lost = self._ready[name]
        if lost:
            self._ready[name] -= lost
            self.outcome.interrupted += lost
            self._leaving += [(now_s + kind.notice_s, name)] * lost
            self._changed = True

    def _arrive(self, now_s: float, arrived: Sequence[float]) -> None:
        requests, prompts, outputs, batch, batch_prompts, batch_outputs = arrived
        self._waiting[0] += requests
        self._waiting[1] += prompts
        self._waiting[2] += outputs
        self._sampled[0] += prompts
        self._sampled[1] += outputs
        if batch:
            self._batch.arrive(now_s, batch, batch_prompts, batch_outputs)
        tick_s, rates = self._ticks.tick_s, self._rates
        new = (1 - 0.5 ** (tick_s / SMOOTHING_S) if now_s else 1.0) / tick_s
        keep = 1 - new * tick_s
        for index, amount in enumerate(arrived):
            rates[index] = keep * rates[index] + new * amount
        if (now_s + tick_s) % SAMPLE_S < tick_s:
            self._history.append(
                Sample(now_s, self._sampled[0] / SAMPLE_S, self._sampled[1] / SAMPLE_S)
            )
            self._kept_history = ()
            self._sampled = [0.0, 0.0]

    def _serve(self, now_s: float, tick_s: float, arrived: float) -> None:
        if self._changed:
            self._speeds, self._changed = self._added_up(), False
        speeds = self._speeds
        if not speeds.replicas:
            self._judge(0.0, arrived, arrived, tick_s)
            return
        requests, prompts, outputs = self._waiting
        needed = prompts / speeds.prompts + outputs / speeds.outputs  # seconds of the whole fleet
        spilt = self._spilt(arrived, requests, needed, speeds.usable * tick_s)
        if spilt:
            needed *= 1 - spilt / requests
        before = needed * max(0.0, 1 - (arrived - spilt) / (requests - spilt)) if requests else 0.0
        done = min(1.0, tick_s / needed) if needed > 0 else 1.0
        kept = (1 - done) * (1 - spilt / requests) if requests else 0.0
        self._waiting = [requests * kept, prompts * kept, outputs * kept]
        load = needed / tick_s
        ttft_s, tpot_s, met = self._table(load)
        waits_s = max(before, needed - tick_s)
        if before > self._world.ttft_slo_s:
            met = 0.0
        # Batch work fills replicas up to the load at which urgent work keeps its limits.
        filled = max(0.0, speeds.usable * tick_s - needed)
        left = self._batch.work_off(now_s, filled, speeds.prompts, speeds.outputs, self.outcome)
        total = load + (filled - left) / tick_s
        self._latest = (ttft_s + max(0.0, waits_s), tpot_s, met, load, total)
        self._judge(met, arrived, spilt, tick_s)

    def _spilt(self, arrived: float, requests: float, needed: float, usable_s: float) -> float:
        """Requests of this tick that the student answers, so that the others stay in time."""
        share = self._world.spill_share
        if not share or needed <= usable_s or not arrived:
            return 0.0
        allowed = share * (self.outcome.urgent + arrived) - self.outcome.spilt
        wanted = requests * (1 - usable_s / needed)
        return max(0.0, min(wanted, allowed, arrived * 0.9))

    def _table(self, load: float) -> tuple[float, float, float]:
        """The router keeps replicas equally loaded: the mean over tables, by what they do."""
        ttft_s = tpot_s = met = 0.0
        for weight, table in self._speeds.weights:
            row = table.at(load)
            ttft_s, tpot_s = max(ttft_s, row.ttft_p90_s), max(tpot_s, row.tpot_p90_s)
            met += weight * row.met
        return ttft_s, tpot_s, met

    def _judge(self, met: float, arrived: float, spilt: float, tick_s: float) -> None:
        out, moment = self.outcome, self.outcome.moments[-1]
        if not self._speeds.replicas:
            spilt = 0.0
        good = met * (arrived - spilt) + spilt
        out.urgent += arrived
        out.spilt += spilt
        out.usd += spilt * self._world.spill_usd
        out.urgent_met += good
        moment.urgent += arrived
        moment.urgent_met += good
        if arrived and good < 0.95 * arrived:
            out.minutes_lost += tick_s / 60

    def _added_up(self) -> _Speeds:
        speeds, shares = _Speeds(), dict[int, tuple[float, ReplicaTable]]()
        for kind in self._world.pools:
            name, capacity = kind.state.name, kind.table.capacity
            count = self._ready[name]
            leaving = sum(gone == name for _, gone in self._leaving)
            paid = count + len(self._starting[name]) + leaving
            speeds.usd_per_hour += paid * kind.state.usd_at(self._now_s)
            if not count:
                continue
            speeds.replicas += count
            speeds.prompts += count * capacity.prefill_tokens_per_s
            speeds.outputs += count * capacity.decode_tokens_per_s
            does = count * kind.table.saturated_per_s
            speeds.usable += does * capacity.usable
            before = shares.get(id(kind.table), (0.0, kind.table))[0]
            shares[id(kind.table)] = (before + does, kind.table)
        total = sum(does for does, _ in shares.values())
        if total:
            speeds.usable /= total
            speeds.weights = [(does / total, table) for does, table in shares.values()]
        return speeds

    def _pay(self, tick_s: float) -> None:
        if self._changed:
            self._speeds, self._changed = self._added_up(), False
        hour, moment = tick_s / 3600, self.outcome.moments[-1]
        usd_per_hour = self._speeds.usd_per_hour
        paid = self._speeds.replicas + len(self._leaving)
        paid += sum(map(len, self._starting.values()))
        self.outcome.replica_hours += paid * hour
        self.outcome.usd += usd_per_hour * hour
        moment.ticks += 1
        moment.replicas += self._speeds.replicas
        moment.usd_per_hour += usd_per_hour
        moment.waiting += self._waiting[0]

    def _decide(self, now_s: float) -> None:
        decision = self._policy.decide(self._report(now_s), now_s, self._state)
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
        if not change:
            return 0
        self._changed = True
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
        ttft_s, tpot_s, met, load, total = self._latest
        rates = self._rates
        # Dispatched but not yet computed: by Little's law.
        prefilling = rates[1] * min(ttft_s, 2.0) / 2
        urgent = Demand(
            rates[0],
            rates[1],
            rates[2],
            round(requests),
            prompts + prefilling,
            outputs,
            0.0,
            min(ttft_s, 600.0),
            min(tpot_s, 10.0),
            met,
            met,
        )
        classes = {"interactive": urgent}
        if self._has_batch and self._world.sees_batch:
            classes["batch"], load = self._batch.demand(now_s, rates[3:]), total
        pools = tuple(self._pool_state(kind, load) for kind in self._world.pools)
        if not self._kept_history:
            self._kept_history = tuple(self._history)
        slo = (self._world.ttft_slo_s, self._world.tpot_slo_s)
        return ModelState("model", classes, pools, *slo, self._kept_history)

    def _pool_state(self, kind: PoolKind, load: float) -> PoolState:
        name, ready = kind.state.name, self._ready[kind.state.name]
        streams = kind.table.at(load).streams if ready else 0.0
        return replace(
            kind.state,
            capacity=kind.table.capacity,
            usd_per_hour=kind.state.usd_at(self._now_s),
            ready=ready,
            starting=len(self._starting[name]),
            draining=sum(gone == name for _, gone in self._leaving),
            running_requests=round(streams * ready),
            kv_use=min(1.0, streams / kind.table.room),
        )
