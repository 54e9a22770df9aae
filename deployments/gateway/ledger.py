"""The gateway's side of the ledger: its outbox, what ships it, and how long replicas are up."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from deployments.gateway.model import Model
from deployments.gateway.replica_time import ReplicaClock
from deployments.served import ServedReplica
from weir.ledger import Entry, UsageRecord
from weir.ledger.outbox import Outbox, OutboxLimits
from weir.ledger.shipping import Shipper
from weir.metrics import GatewayMetrics
from weir.settings import Settings
from weir.settings.ledger import FOLDER_VARIABLE

_LOG = logging.getLogger("weir.ledger")
_LOOK_S = 5.0
_FLUSH_S = 2.0

#: What Ray Serve says of its replicas; None while it does not answer.
Served = Callable[[], Awaitable[Sequence[ServedReplica] | None]]


class GatewayLedger:
    """Keeps what the gateway notes. See :mod:`weir.ledger.outbox` for what is lost when."""

    def __init__(
        self,
        outbox: Outbox,
        shipper: Shipper,
        metrics: GatewayMetrics,
        wall_clock: Callable[[], float],
    ) -> None:
        self._outbox = outbox
        self._shipper = shipper
        self._metrics = metrics
        self._wall_clock = wall_clock
        self._lost = 0
        self._clock: ReplicaClock | None = None
        self._tasks: list[asyncio.Task[None]] = []

    def note(self, records: Sequence[UsageRecord]) -> None:
        """Write them into the outbox."""
        self._append(records)

    def start(self, models: Iterable[Model], served: Served) -> None:
        """Ship from now on, and tell how long the models' replicas are up."""
        loop = asyncio.get_running_loop()
        self._clock = ReplicaClock(list(models))
        self._tasks = [
            loop.create_task(self._shipper.run()),
            loop.create_task(self._watch(self._clock, served)),
        ]

    async def close(self) -> None:
        """Ship what is left; what cannot be shipped soon, another process takes over."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._clock is not None:
            self._append(list(self._clock.close()))
        if not await self._shipper.flush(_FLUSH_S):
            _LOG.info("the outbox is left to others", extra={"outbox": self._outbox.name})
        self._shipper.close()

    def _append(self, entries: Sequence[Entry]) -> None:
        self._outbox.append(entries)
        if self._outbox.lost != self._lost:
            self._metrics.ledger_lost.inc(self._outbox.lost - self._lost)
            self._lost = self._outbox.lost

    async def _watch(self, clock: ReplicaClock, served: Served) -> None:
        while True:
            there = await served()
            if told := list(clock.look(int(self._wall_clock() * 1000), there)):
                self._append(told)
            await asyncio.sleep(_LOOK_S)


class ShippingMetrics:
    """See :class:`weir.ledger.shipping.Watcher`."""

    def __init__(self, metrics: GatewayMetrics) -> None:
        self._metrics = metrics

    def shipped(self, outbox: Outbox, up: bool) -> None:
        """How much waits, and whether Redis answers."""
        self._metrics.ledger_outbox_bytes.set(outbox.size_bytes)
        self._metrics.ledger_held.set(outbox.held)
        self._metrics.ledger_stream_up.set(float(up))


def open_ledger(
    settings: Settings,
    environment: Mapping[str, str],
    redis: Any,
    metrics: GatewayMetrics,
    wall_clock: Callable[[], float],
) -> GatewayLedger | None:
    """None where nothing is to be recorded, or nothing says where."""
    root = ledger_folder(settings, environment)
    if root is None:
        return None
    limits = OutboxLimits(max_bytes=settings.ledger.outbox_max_bytes)
    name = f"{os.uname().nodename}-{os.getpid()}-{secrets.token_hex(4)}"
    try:
        outbox = Outbox.create(root, name, limits)
    except OSError as error:
        # A gateway that answers without a bill is better than none that answers; it is loud.
        _LOG.critical("nothing is recorded: no outbox", extra={"reason": str(error)})
        metrics.ledger_stream_up.set(0.0)
        return None
    clock = asyncio.get_running_loop().time
    shipper = Shipper(redis, outbox, root, ShippingMetrics(metrics), clock, limits=limits)
    return GatewayLedger(outbox, shipper, metrics, wall_clock)


def ledger_folder(settings: Settings, environment: Mapping[str, str]) -> Path | None:
    """Where outboxes are."""
    if not settings.ledger.enabled:
        return None
    given = settings.ledger.folder or environment.get(FOLDER_VARIABLE)
    return Path(given).expanduser().absolute() if given else None
