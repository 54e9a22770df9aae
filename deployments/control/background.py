"""What the control process does beside answering, from the application's start to its end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from typing import Protocol

from redis import Redis
from sqlalchemy import Engine

from deployments.gateway.feature_store import platform_redis_url
from weir.ledger.rates import rates_of
from weir.ledger.writer import run_writer
from weir.rollouts.keeper import Keeper
from weir.rollouts.store import RolloutStore
from weir.settings import Settings

_STOP_S = 10.0
_REDIS_TIMEOUT_S = 5.0


class Background(Protocol):
    """Something that runs."""

    def start(self) -> None:
        """Begin, on the running loop or in a thread."""
        ...

    async def close(self) -> None:
        """End."""
        ...


class LedgerWriter:
    """Puts what gateways have recorded into the database."""

    def __init__(self, settings: Settings, environment: Mapping[str, str], engine: Engine) -> None:
        """Raises:
        ConfigError: the platform's Redis has no URL.
        """
        self._stop = threading.Event()
        rates = rates_of(settings)
        self._thread = threading.Thread(
            target=run_writer,
            args=(platform_redis_url(settings, environment), engine, self._stop, lambda: rates),
            kwargs={"keep_records_days": settings.ledger.keep_records_days},
            name="weir-ledger-writer",
            daemon=True,
        )

    def start(self) -> None:
        self._thread.start()

    async def close(self) -> None:
        self._stop.set()
        await asyncio.to_thread(self._thread.join, _STOP_S)


class RolloutKeeper:
    """Judges candidate versions, and moves their rollouts on."""

    def __init__(self, settings: Settings, environment: Mapping[str, str], engine: Engine) -> None:
        """Raises:
        ConfigError: the platform's Redis has no URL.
        """
        self._stop = threading.Event()
        url = platform_redis_url(settings, environment)
        self._redis = Redis.from_url(url, socket_timeout=_REDIS_TIMEOUT_S)
        keeper = Keeper(self._redis, RolloutStore(engine))
        self._thread = threading.Thread(
            target=keeper.run, args=(self._stop,), name="weir-rollouts", daemon=True
        )

    def start(self) -> None:
        self._thread.start()

    async def close(self) -> None:
        self._stop.set()
        await asyncio.to_thread(self._thread.join, _STOP_S)
        self._redis.close()
