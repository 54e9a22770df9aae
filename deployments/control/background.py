"""What the control process does beside answering, from the application's start to its end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from typing import Protocol

from sqlalchemy import Engine

from deployments.gateway.feature_store import platform_redis_url
from weir.ledger.rates import rates_of
from weir.ledger.writer import run_writer
from weir.settings import Settings

_STOP_S = 10.0


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
