"""The gateway's side of the ledger: its outbox, what ships it, and how long replicas are up."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deployments.gateway.model import Model
from weir.ledger import Entry, ReplicaTime, UsageRecord
from weir.ledger.outbox import Outbox, OutboxLimits
from weir.ledger.shipping import Shipper
from weir.metrics import GatewayMetrics
from weir.settings import Settings
from weir.settings.ledger import FOLDER_VARIABLE

_LOG = logging.getLogger("weir.ledger")
_LOOK_S = 5.0
_TELL_S = 60.0
_FLUSH_S = 2.0


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
        self._tasks: list[asyncio.Task[None]] = []

    def note(self, records: Sequence[UsageRecord]) -> None:
        """Write them into the outbox."""
        self._append(records)

    def start(self, models: Iterable[Model]) -> None:
        """Ship from now on, and tell how long the models' replicas are up."""
        loop = asyncio.get_running_loop()
        self._tasks = [
            loop.create_task(self._shipper.run()),
            loop.create_task(self._watch(ReplicaClock(list(models)))),
        ]

    async def close(self) -> None:
        """Ship what is left; what cannot be shipped soon, another process takes over."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if not await self._shipper.flush(_FLUSH_S):
            _LOG.info("the outbox is left to others", extra={"outbox": self._outbox.name})
        self._shipper.close()

    def _append(self, entries: Sequence[Entry]) -> None:
        self._outbox.append(entries)
        if self._outbox.lost != self._lost:
            self._metrics.ledger_lost.inc(self._outbox.lost - self._lost)
            self._lost = self._outbox.lost

    async def _watch(self, clock: ReplicaClock) -> None:
        while True:
            if told := list(clock.look(int(self._wall_clock() * 1000))):
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


@dataclass(slots=True)
class _Life:
    """A replica that is up, or was when it was last looked at. ``told_ms``: up to there its time
    has been told."""

    model: str
    pool: str
    told_ms: int
    seen_ms: int


class ReplicaClock:
    """How long each replica is up, told about once a minute, and when it has gone. All gateways
    tell the same of the same replica."""

    def __init__(self, models: Sequence[Model]) -> None:
        self._models = models
        self._lives: dict[str, _Life] = {}

    def look(self, now_ms: int) -> Iterator[ReplicaTime]:
        """What is to be told now, in milliseconds since the epoch."""
        up = dict(self._up(now_ms))
        for replica_id, life in up.items():
            self._lives.setdefault(replica_id, life).seen_ms = now_ms
        for replica_id, life in list(self._lives.items()):
            gone = replica_id not in up
            if gone:
                del self._lives[replica_id]
            if life.seen_ms > life.told_ms and (gone or now_ms - life.told_ms >= _TELL_S * 1000):
                yield ReplicaTime(
                    replica=replica_id,
                    model=life.model,
                    pool=life.pool,
                    from_ms=life.told_ms,
                    until_ms=life.seen_ms,
                )
                life.told_ms = life.seen_ms

    def _up(self, now_ms: int) -> Iterator[tuple[str, _Life]]:
        """Members, and those that have left and still end their streams."""
        for model in self._models:
            members = {info.replica_id: info for info in model.router.members}
            for replica_id, info in members.items():
                since_ms = int(info.started_s * 1000) or now_ms
                yield replica_id, _Life(model.name, info.pool, min(since_ms, now_ms), now_ms)
            for replica_id in model.fleet.connected - members.keys():
                pool = model.pool_of(replica_id)
                yield replica_id, _Life(model.name, pool, now_ms, now_ms)


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
