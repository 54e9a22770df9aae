"""What this gateway tells for ``/dashboard``: once a second through Redis, while somebody looks."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from typing import Any

from redis.exceptions import RedisError

from deployments.gateway.handle import Gateway
from deployments.gateway.model import Model
from deployments.live import BOARDS, WATCHED, Board, QueueFacts, ReplicaFacts, encode
from router.snapshot import Snapshot
from router.types import ReplicaView

_LOG = logging.getLogger("weir.gateway")
_PERIOD_S = 1.0
_PATIENCE_S = 2.0
_KEPT_S = 60


class BoardWriter:
    """``redis``: a :class:`redis.asyncio.Redis`; ``name``: the gateway's; ``wall_clock`` gives
    seconds since the epoch."""

    def __init__(
        self, gateway: Gateway, redis: Any, name: str, wall_clock: Callable[[], float]
    ) -> None:
        self._gateway = gateway
        self._redis = redis
        self._name = name
        self._wall_clock = wall_clock

    async def run(self) -> None:
        """Until cancelled. A Redis that is away costs nothing but the page's figures."""
        away = False
        while True:
            await asyncio.sleep(_PERIOD_S)
            try:
                async with asyncio.timeout(_PATIENCE_S):
                    await self.write()
                away = False
            except (RedisError, OSError, TimeoutError) as error:
                if not away:
                    _LOG.info("the dashboard learns nothing now", extra={"reason": str(error)})
                away = True

    async def write(self) -> bool:
        """Tell what is so now, if somebody looks; whether somebody does.

        Raises:
            RedisError, OSError: Redis does not answer.
        """
        if not await self._redis.exists(WATCHED):
            return False
        await self._redis.hset(BOARDS, self._name, encode(self.board()))
        await self._redis.expire(BOARDS, _KEPT_S)
        return True

    def board(self) -> Board:
        """All that this gateway knows."""
        gateway = self._gateway
        models = gateway.models.values()
        return Board(
            self._name,
            int(self._wall_clock() * 1000),
            _in_flight(gateway),
            [facts for model in models for facts in _replicas(model)],
            [facts for model in models for facts in _queues(model)],
            gateway.recent.stretches(),
            gateway.recent.ended(),
        )


def _in_flight(gateway: Gateway) -> dict[str, int]:
    found: Counter[str] = Counter()
    for metric in gateway.metrics.in_flight.collect():
        for sample in metric.samples:
            found[sample.labels["tenant"]] += int(sample.value)
    return {tenant: count for tenant, count in found.items() if count}


def _replicas(model: Model) -> list[ReplicaFacts]:
    snapshot = model.router.snapshot()
    return [_replica(model.name, view, snapshot) for view in snapshot.replicas]


def _replica(model: str, view: ReplicaView, snapshot: Snapshot) -> ReplicaFacts:
    total, stats = view.info.kv_blocks_total, view.stats
    return ReplicaFacts(
        view.replica_id,
        model,
        view.info.pool,
        view.info.role,
        round(stats.kv_blocks_used / total, 4) if total else 0.0,
        stats.running,
        stats.waiting,
        view.load.outstanding_tokens,
        round(max(0.0, snapshot.now_s - stats.at_s), 2),
        stats.mfu,
        stats.mbu,
    )


def _queues(model: Model) -> list[QueueFacts]:
    return [
        QueueFacts(model.name, stats.name, stats.waiting, stats.in_flight, stats.late)
        for stats in model.dispatcher.queue.stats()
    ]
