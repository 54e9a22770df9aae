"""Decides how many replicas the pools have: reads what gateways tell, asks the policy, writes the
numbers where Serve looks for them (:mod:`deployments.autoscaling`), and keeps why.

A thread of the control process. Of several control processes one decides at a time: the one that
holds the lease. What was learned is in Redis, so the next one goes on from there.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

import weir.autoscaling.policies  # noqa: F401 - registers them
from deployments.autoscaling import TARGETS, written
from deployments.batches.backlog import backlogs
from deployments.gateway.demand import FIGURES, REPORTS, SPILLS
from deployments.gateway.feature_store import platform_redis_url
from deployments.gateway.role_splits import SPLITS
from deployments.scaling_plans import scaling_plans
from weir.autoscaling.deciding import Decided, Scaler, figures_of
from weir.autoscaling.keeping import Keeper, forget_before, keep
from weir.autoscaling.registry import build_policy
from weir.autoscaling.report import Backlog
from weir.autoscaling.telling import (
    GatewayTold,
    pack_by_model,
    pack_figures,
    unpack,
)
from weir.database import writing
from weir.errors import DatabaseAwayError
from weir.settings import Settings

_LOG = logging.getLogger("weir.autoscaling")
MEMORY = "weir:autoscaling:memory"
LEASE = "weir:autoscaling:lease"
_STOP_S = 10.0
_FORGET_PERIOD_S = 3600.0
_REDIS_TIMEOUT_S = 2.0
#: Figures of decisions that are older are shown no longer.
_FIGURES_S = 120.0
#: Reports of gateways that are gone are removed after so long.
_GONE_S = 300.0


class Round:
    """One round of deciding, with what it needs. ``now_s``: seconds since the epoch."""

    def __init__(
        self,
        settings: Settings,
        redis: Any,
        engine: Engine,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        """Raises:
        ConfigError: the policy or its parameters are not known.
        """
        chosen = settings.autoscaling
        self._redis = redis
        self._engine = engine
        self._now_s = now_s
        self._lease_s = 3 * chosen.period_s + 5
        self._keep_s = chosen.keep_days * 86_400
        plans = scaling_plans(settings)
        self._models = frozenset(plan.name for plan in plans)
        self._backlogs: Mapping[str, Backlog] = {}
        self._scaler = Scaler(plans, build_policy(chosen.policy, chosen.params))
        self._keeper = Keeper(chosen.policy)
        self._name = f"{os.uname().nodename}-{os.getpid()}-{os.urandom(3).hex()}"
        self._begun = False
        self._forgot_s = float("-inf")

    def run(self) -> list[Decided]:
        """Decide and write; nothing where another process decides, or nobody tells anything.

        Raises:
            RedisError, OSError: Redis is away.
            DatabaseAwayError, SQLAlchemyError: the numbers stand, but why is not kept.
        """
        if not self._leads():
            self._begun = False
            return []
        now_s = self._now_s()
        reports = self._reports(now_s)
        if not self._begun and reports:
            if (raw := self._redis.get(MEMORY)) is not None:
                self._scaler.remember(raw, reports, now_s)
            self._begun = True
        decided = self._scaler.decide(reports, now_s, self._left_of_batches(now_s))
        if decided:
            self._write(decided, now_s)
            self._keep(decided, now_s)
        return decided

    def resign(self) -> None:
        """Let another process decide at once.

        Raises:
            RedisError, OSError: Redis is away; the lease ends by itself.
        """
        if self._redis.get(LEASE) == self._name.encode():
            self._redis.delete(LEASE)

    def _leads(self) -> bool:
        for_ms = int(self._lease_s * 1000)
        if self._redis.set(LEASE, self._name, nx=True, px=for_ms):
            return True
        if self._redis.get(LEASE) != self._name.encode():
            return False
        return bool(self._redis.pexpire(LEASE, for_ms))

    def _left_of_batches(self, now_s: float) -> Mapping[str, Backlog]:
        """As the database says, or as it said last."""
        with contextlib.suppress(DatabaseAwayError, SQLAlchemyError):
            self._backlogs = backlogs(self._engine, self._models, now_s)
        return self._backlogs

    def _reports(self, now_s: float) -> list[GatewayTold]:
        reports, gone = [], []
        for name, raw in self._redis.hgetall(REPORTS).items():
            told = unpack(raw)
            if told is not None:
                reports.append(told)
            if told is None or now_s - told.at_s > _GONE_S:
                gone.append(name)
        if gone:
            self._redis.hdel(REPORTS, *gone)
        return reports

    def _write(self, decided: list[Decided], now_s: float) -> None:
        numbers = {
            each.deployments[pool]: written(target, now_s)
            for each in decided
            for pool, target in each.targets.items()
            if pool in each.deployments
        }
        pipeline = self._redis.pipeline(transaction=False)
        if numbers:
            pipeline.hset(TARGETS, mapping=numbers)
        pipeline.set(MEMORY, self._scaler.memory(now_s))
        figures = [figure for each in decided for figure in figures_of(each)]
        pipeline.set(FIGURES, pack_figures(figures), px=int(_FIGURES_S * 1000))
        spills = {each.model.name: each.spills for each in decided if each.spills}
        # Where nobody decides any longer, nothing goes to a student for that.
        pipeline.set(SPILLS, pack_by_model(spills), px=int(self._lease_s * 1000))
        splits = {each.model.name: each.prefilling for each in decided if each.prefilling}
        pipeline.set(SPLITS, pack_by_model(splits), px=int(self._lease_s * 1000))
        pipeline.execute()
        for each in decided:
            if each.changes:
                told = {"model": each.model.name, "targets": dict(each.targets)}
                because = each.decision.explanation.because
                _LOG.info("other numbers of replicas", extra={**told, "because": because})

    def _keep(self, decided: list[Decided], now_s: float) -> None:
        rows = self._keeper.chosen(decided)
        forget = now_s - self._forgot_s > _FORGET_PERIOD_S
        if not rows and not forget:
            return
        with writing(self._engine) as connection:
            keep(connection, rows)
            if forget:
                forget_before(connection, now_s - self._keep_s)
        self._keeper.kept(rows)
        if forget:
            self._forgot_s = now_s


class ScalingThread:
    """Rounds, one every ``autoscaling.period_s``, from the application's start to its end."""

    def __init__(
        self,
        settings: Settings,
        environment: Mapping[str, str],
        engine: Engine,
        tell: Callable[[list[Decided]], None] = lambda _: None,
    ) -> None:
        """``tell`` is called with what each round decided.

        Raises:
            ConfigError: the platform's Redis has no URL, or the policy is not known.
        """
        self._tell = tell
        self._stop = threading.Event()
        self._period_s = settings.autoscaling.period_s
        self._redis = Redis.from_url(
            platform_redis_url(settings, environment),
            socket_timeout=_REDIS_TIMEOUT_S,
            socket_connect_timeout=_REDIS_TIMEOUT_S,
        )
        self._round = Round(settings, self._redis, engine)
        self._thread = threading.Thread(target=self._run, name="weir-scaling", daemon=True)

    def start(self) -> None:
        """See :class:`deployments.control.background.Background`."""
        self._thread.start()

    async def close(self) -> None:
        """See :class:`deployments.control.background.Background`."""
        self._stop.set()
        await asyncio.to_thread(self._thread.join, _STOP_S)

    def _run(self) -> None:
        failing = False
        while not self._stop.wait(self._period_s):
            try:
                self._tell(self._round.run())
                failing = False
            except (RedisError, OSError, DatabaseAwayError, SQLAlchemyError) as error:
                if not failing:
                    _LOG.warning("the autoscaler pauses", extra={"reason": str(error)})
                failing = True
            except Exception:  # noqa: BLE001 - the thread's edge: everything stays as it is
                if not failing:
                    _LOG.exception("the autoscaler failed; the numbers of replicas stay")
                failing = True
        with contextlib.suppress(RedisError, OSError):
            self._round.resign()
        self._redis.close()
