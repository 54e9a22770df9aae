"""Keeps pools split into replicas that compute prompts and replicas that answer, as the autoscaler
has decided (:mod:`weir.autoscaling.roles`). Every gateway does so: a replica that is told what it
does already only does it for longer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from redis.exceptions import RedisError

from deployments.gateway.model import Model
from deployments.gateway.role_changes import Replicas, members_of
from router.disaggregation.roles import Change, plan_split
from weir.autoscaling.telling import unpack_by_model
from weir.errors import WeirError

_LOG = logging.getLogger("weir.gateway")
#: Replicas that only compute prompts, by model and pool.
SPLITS = "weir:autoscaling:splits"
_PERIOD_S = 2.0
_REDIS_TIMEOUT_S = 2.0
#: A role that nobody has renewed for so long ends by itself.
_FOR_S = 600.0
_RENEW_S = _FOR_S / 2


class RoleSplits:
    """``redis``: the platform's. ``clock``: the loop's."""

    def __init__(
        self,
        models: Mapping[str, Model],
        replicas: Replicas,
        redis: Any,
        clock: Callable[[], float],
    ) -> None:
        self._models = models
        self._replicas = replicas
        self._redis = redis
        self._clock = clock
        self._told_s: dict[str, float] = {}
        self._failing = False

    async def run(self) -> None:
        """Until cancelled. While Redis is away, or nobody decides, replicas keep their roles until
        these end."""
        while True:
            try:
                async with asyncio.timeout(_REDIS_TIMEOUT_S):
                    raw = await self._redis.get(SPLITS)
                await self.keep(unpack_by_model(raw, int))
            except (RedisError, OSError, TimeoutError) as error:
                self._fail(error)
            await asyncio.sleep(_PERIOD_S)

    async def keep(self, prefilling: Mapping[str, Mapping[str, int]]) -> None:
        """One round. ``prefilling``: by model and pool, how many only compute prompts. What cannot
        be done now is left for the next round."""
        for name, pools in prefilling.items():
            model = self._models.get(name)
            if model is None:
                continue
            for pool, count in pools.items():
                for change in list(self._changes(model, pool, count)):
                    await self._tell(model, change)
        there = {info.replica_id for each in self._models.values() for info in each.router.members}
        self._told_s = {name: at_s for name, at_s in self._told_s.items() if name in there}

    def _changes(self, model: Model, pool: str, count: int) -> Iterator[Change]:
        """New roles, and roles that would end soon."""
        now_s = self._clock()
        infos = [info for info in model.router.members if info.pool == pool]
        ids = [info.replica_id for info in infos]
        changes = plan_split(members_of(model.router), ids, count, now_s)
        yield from changes
        changing = {change.replica_id for change in changes}
        for info in infos:
            told_s = self._told_s.get(info.replica_id, float("-inf"))
            temporary = info.role != info.pool_role and info.replica_id not in changing
            if temporary and now_s - told_s > _RENEW_S:
                yield Change(info.replica_id, info.role)

    async def _tell(self, model: Model, change: Change) -> None:
        try:
            await self._replicas.tell(model, change, _FOR_S)
            self._told_s[change.replica_id] = self._clock()
            self._failing = False
        except WeirError as error:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        if not self._failing:
            _LOG.warning("replicas keep their roles for now", extra={"reason": str(error)})
        self._failing = True
