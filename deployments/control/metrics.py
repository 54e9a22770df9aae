"""``/metrics`` of the control process: money of this month, as the ledger has it, and what
autoscaling decided.

Gateways ask for it over the control process' socket, which only they can open, and add it to their
own page. Where the process has a port of its own, a key of ``server.metrics`` opens it.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
from collections.abc import Sequence

from fastapi import FastAPI, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from deployments.control.parts import Parts
from weir.autoscaling.deciding import Decided
from weir.errors import AuthenticationError, WeirError
from weir.ledger.report import CostReport, cost_report
from weir.ledger.usage import Period
from weir.metrics import ControlMetrics
from weir.tenancy import hash_key

_LOG = logging.getLogger("weir.control")
PATH = "/metrics"
#: A report reads all hours of the month.
_KEPT_S = 60.0


class Money:
    """Keeps the gauges of money; at most a minute old when they are told."""

    def __init__(self, parts: Parts, metrics: ControlMetrics) -> None:
        self._parts = parts
        self._metrics = metrics
        self._read_s = -_KEPT_S
        self._lock = asyncio.Lock()

    async def refresh(self) -> None:
        """Read the ledger, unless that was done a moment ago. Where the database does not answer,
        the gauges stay as they are."""
        now_s = self._parts.now_s()
        async with self._lock:
            if now_s - self._read_s < _KEPT_S:
                return
            since = dt.datetime.fromtimestamp(now_s, dt.UTC)
            since = since.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
            period = Period(int(since.timestamp() * 1000))
            engine = self._parts.tenants.engine
            try:
                report = await self._parts.store.in_thread(
                    lambda: cost_report(engine, "class", period)
                )
            except WeirError as error:
                _LOG.info("no figures of money", extra={"reason": error.message})
                return
            self._read_s = now_s
            self._set(report)

    def _set(self, report: CostReport) -> None:
        metrics = self._metrics
        for gauge in (metrics.paid, metrics.idle, metrics.hours, metrics.borne, metrics.billed):
            gauge.clear()  # a new month has other rows
        for pool in report.pools:
            metrics.paid.labels(pool.model, pool.pool).set(float(pool.paid_usd))
            metrics.idle.labels(pool.model, pool.pool).set(float(pool.idle_usd))
            metrics.hours.labels(pool.model, pool.pool).set(float(pool.replica_hours))
        for row in report.rows:
            metrics.borne.labels(row.group).set(float(row.cost_usd))
            metrics.billed.labels(row.group).set(float(row.billed_usd))
        saved = report.saved
        for name, usd in (
            ("cache", saved.cache_usd),
            ("student", saved.student_usd),
            ("spot", saved.spot_usd),
        ):
            metrics.saved.labels(name).set(float(usd))


class ScalingMetrics:
    """Told what each round of autoscaling decided; nothing where another process decides."""

    def __init__(self, metrics: ControlMetrics) -> None:
        self._metrics = metrics

    def __call__(self, decided: Sequence[Decided]) -> None:
        """Called in the autoscaler's thread."""
        for each in decided:
            name = each.model.name
            for pool, target in each.targets.items():
                self._metrics.target.labels(name, pool).set(target)
            for figure, value in each.decision.explanation.seen.items():
                self._metrics.figure.labels(name, figure).set(value)
            for priority, demand in each.model.classes.items():
                self._metrics.arrivals.labels(name, priority).set(demand.arrivals_per_s)
            self._metrics.usd_per_hour.labels(name).set(each.usd_per_hour)
            self._metrics.changes.labels(name).inc(each.changes)


def add_metrics(app: FastAPI, parts: Parts, metrics: ControlMetrics) -> None:
    """The page."""
    money = Money(parts, metrics)
    server = parts.settings.server
    local, keys = server.admin.port is None, frozenset(server.metrics.key_sha256)

    async def page(request: Request) -> Response:
        if not local:
            scheme, _, key = request.headers.get("authorization", "").partition(" ")
            if scheme.lower() != "bearer" or hash_key(key.strip()) not in keys:
                raise AuthenticationError("A key of server.metrics.key_sha256 is needed here.")
        await money.refresh()
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    app.add_route(PATH, page, include_in_schema=False)
