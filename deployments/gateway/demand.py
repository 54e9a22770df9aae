"""What a gateway tells of demand: counted where requests arrive and end, told every two seconds.

A request costs a few additions at each end, and a token nothing. The reports go into a hash in
Redis, one field for each gateway; who decides reads them all (:mod:`weir.autoscaling.collecting`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
from collections.abc import Callable, Mapping
from typing import Any

from redis.exceptions import RedisError

from deployments.gateway.ending import Ending
from deployments.gateway.model import Model
from deployments.gateway.record import Record
from deployments.gateway.surplus import Surplus
from weir.autoscaling.telling import (
    ClassTold,
    GatewayTold,
    ModelTold,
    ReplicaTold,
    bin_of,
    no_times,
    pack,
    unpack_by_model,
    unpack_figures,
)
from weir.metrics import GatewayMetrics

_LOG = logging.getLogger("weir.gateway")
#: Where the reports are: field = the gateway's name.
REPORTS = "weir:autoscaling:reports"
#: What was decided last, for the metrics.
FIGURES = "weir:autoscaling:figures"
#: Which shares of the requests are the students' now, by model and class.
SPILLS = "weir:autoscaling:spills"
PERIOD_S = 2.0
_REDIS_TIMEOUT_S = 2.0


class Times:
    """How fast one class of one model was answered."""

    __slots__ = ("tpot", "tpot_judged", "tpot_met", "ttft", "ttft_judged", "ttft_met")

    def __init__(self) -> None:
        self.ttft, self.tpot = no_times(), no_times()
        self.ttft_judged = self.ttft_met = self.tpot_judged = self.tpot_met = 0


class Answered:
    """Counts answers by model and class."""

    def __init__(self) -> None:
        self.by_class: dict[tuple[str, str], Times] = {}

    def count(self, record: Record, ending: Ending) -> None:
        """A request has ended."""
        if ending.answered is None:
            return
        times = self._times(record.model, ending.priority_class)
        if ending.ttft_met is not None:
            times.ttft_judged += 1
            times.ttft_met += ending.ttft_met
        if ending.ttft_s is not None:
            times.ttft[bin_of(ending.ttft_s)] += 1
        if ending.tpot_s is not None:
            times.tpot[bin_of(ending.tpot_s)] += 1
        if ending.tpot_met is not None:
            times.tpot_judged += 1
            times.tpot_met += ending.tpot_met

    def _times(self, model: str, priority_class: str) -> Times:
        key = (model, priority_class)
        found = self.by_class.get(key)
        if found is None:
            found = self.by_class[key] = Times()
        return found


def model_told(
    model: Model, answered: Answered, now_s: float, surplus: Surplus | None = None
) -> ModelTold:
    """What a gateway knows of one model; ``now_s`` on the loop's clock. ``surplus``: what the
    autoscaler leaves to its student."""
    classes: dict[str, ClassTold] = {}
    for name, seen in model.dispatcher.arrivals.by_class.items():
        classes[name] = ClassTold(
            seen.requests, seen.prompt_tokens, seen.computed_tokens, seen.output_tokens
        )
    for (owner, name), times in answered.by_class.items():
        if owner == model.name:
            told = classes.setdefault(name, ClassTold())
            told.ttft, told.tpot = list(times.ttft), list(times.tpot)
            told.ttft_judged, told.ttft_met = times.ttft_judged, times.ttft_met
            told.tpot_judged, told.tpot_met = times.tpot_judged, times.tpot_met
    if surplus is not None:
        for name, count in surplus.may.items():
            told = classes.setdefault(name, ClassTold())
            told.may_spill, told.spilt = count, surplus.taken.get(name, 0)
    for source in (model.dispatcher.queue.waiting_work(), model.waking.waiting_work()):
        for name, waits in source.items():
            told = classes.setdefault(name, ClassTold())
            told.waiting_requests += waits.requests
            told.waiting_tokens += waits.computed_tokens
            told.waiting_output_tokens += waits.output_tokens
            told.oldest_wait_s = max(told.oldest_wait_s, now_s - waits.since_s)
    for stats in model.dispatcher.queue.stats():
        if stats.in_flight:
            classes.setdefault(stats.name, ClassTold()).generating = stats.in_flight
    return ModelTold(classes, _replicas(model), model.generating)


def _replicas(model: Model) -> dict[str, ReplicaTold]:
    unreachable = model.fleet.unreachable()
    told = {}
    for info in model.router.members:
        load = model.fleet.loads.get(info.replica_id)
        each = ReplicaTold(
            info.pool,
            info.replica_id not in unreachable,
            load is not None and load.draining,
            info.started_s,
            most_running=info.max_running,
            role=info.role,
        )
        if load is not None:
            each.running, each.waiting = load.running, load.waiting
            each.kv_use = load.kv_blocks_used / max(1, info.kv_blocks_total)
            each.steps, each.busy_s = load.steps, load.busy_s
            each.prefill_tokens, each.decode_tokens = load.prefill_tokens, load.decode_tokens
            each.interrupted = load.interrupted
        told[info.replica_id] = each
    return told


class DemandTeller:
    """Tells who decides, and hears what was decided: which part of the requests is the students'
    (``surpluses``, by model), and the figures that ``metrics`` show. ``redis``: the platform's."""

    def __init__(
        self,
        models: Mapping[str, Model],
        answered: Answered,
        redis: Any,
        wall_clock: Callable[[], float],
        metrics: GatewayMetrics | None = None,
        surpluses: Mapping[str, Surplus] | None = None,
    ) -> None:
        self._surpluses = surpluses or {}
        self._metrics = metrics
        self._models = models
        self._answered = answered
        self._redis = redis
        self._wall_clock = wall_clock
        self._began_s = wall_clock()
        self._name = f"{os.uname().nodename}-{os.getpid()}-{secrets.token_hex(4)}"

    def told(self) -> GatewayTold:
        """The report of now."""
        now_s = asyncio.get_running_loop().time()
        models = {
            name: model_told(model, self._answered, now_s, self._surpluses.get(name))
            for name, model in self._models.items()
        }
        return GatewayTold(self._name, self._began_s, self._wall_clock(), models)

    async def tell(self) -> None:
        """Once.

        Raises:
            RedisError, OSError, TimeoutError: Redis is away.
        """
        async with asyncio.timeout(_REDIS_TIMEOUT_S):
            await self._redis.hset(REPORTS, self._name, pack(self.told()))
            if self._surpluses:
                self._keep_to(unpack_by_model(await self._redis.get(SPILLS), float))
            if self._metrics is not None:
                self._show(await self._redis.get(FIGURES))

    def _keep_to(self, shares: Mapping[str, Mapping[str, float]]) -> None:
        for name, surplus in self._surpluses.items():
            before, now = surplus.shares, shares.get(name, {})
            surplus.decide(now)
            if self._metrics is not None:
                for each in {*before, *now}:
                    gauge = self._metrics.spill_share.labels(name, each)
                    gauge.set(surplus.shares.get(each, 0.0))

    def _show(self, raw: bytes | None) -> None:
        assert self._metrics is not None
        for figures in unpack_figures(raw):
            for name, gauge in self._metrics.autoscaling.items():
                gauge.labels(figures.model, figures.pool).set(getattr(figures, name))

    async def run(self) -> None:
        """Until cancelled; then the report is taken back."""
        up = True
        try:
            while True:
                try:
                    await self.tell()
                    up = True
                except (RedisError, OSError, TimeoutError) as error:
                    if up:
                        _LOG.warning("demand is not told now", extra={"reason": str(error)})
                    up = False
                    self._keep_to({})
                await asyncio.sleep(PERIOD_S)
        finally:
            with contextlib.suppress(RedisError, OSError, TimeoutError):
                async with asyncio.timeout(_REDIS_TIMEOUT_S):
                    await self._redis.hdel(REPORTS, self._name)
