"""Builds a gateway as the settings say. What ships, what tests run and what is simulated are all
built here; only transport, feed, clock and randomness differ."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from deployments.gateway.accounts import Account, Book, LocalStore
from deployments.gateway.adapters import AdapterNames
from deployments.gateway.booking import Ledger
from deployments.gateway.demand import Answered
from deployments.gateway.ending import ClassLimits
from deployments.gateway.fallbacks import Fallback
from deployments.gateway.handle import Gateway
from deployments.gateway.model import Model
from deployments.gateway.off_loop import OffLoop, OffLoopLimits
from deployments.gateway.parts import Enricher, Parts, random_ids
from deployments.gateway.plan import Limits, RefusalLimits
from deployments.gateway.prompts import PromptEncoder
from deployments.gateway.tracing.tracer import Shipping, Tracer
from deployments.gateway.transport import CacheFeed, ReplicaTransport
from weir.metrics import GatewayMetrics
from weir.settings import ModelSettings, Settings
from weir.settings.admission import ClassSettings
from weir.tenancy import Directory, LiveDirectory


def build_gateway(
    settings: Settings,
    encoders: Mapping[str, PromptEncoder],
    transport: ReplicaTransport,
    feed: CacheFeed,
    enricher: Enricher,
    metrics: GatewayMetrics,
    *,
    digests: Mapping[str, Mapping[str, str]] | None = None,
    directory: LiveDirectory | None = None,
    account: Account | None = None,
    ledger: Ledger | None = None,
    shipping: Shipping | None = None,
    answered: Answered | None = None,
    rng: random.Random | None = None,
    ids: Callable[[], str] | None = None,
    wall_clock: Callable[[], float] = time.time,
) -> Gateway:
    """The gateway, on the running event loop. ``encoders``: each model's; ``digests``: the
    versions of each model's adapters, by their names; ``directory``: None is the tenants of the
    settings, for good; ``account``: None counts in this process; ``shipping``: takes traces to
    a collector, where the settings name one; ``answered`` is told how fast requests were answered.

    Raises:
        ConfigError: the settings cannot be used.
    """
    reading = OffLoopLimits()
    off_loop = OffLoop(ThreadPoolExecutor(reading.threads, "weir-prompts"), reading)
    directory = directory or LiveDirectory(Directory.of(settings.tenants), wall_clock)
    classes = settings.admission.classes
    slo = _limits_of(classes)
    fallbacks = _fallbacks(settings, encoders, slo.ttft_s)

    def build(model: ModelSettings) -> Model:
        fallback = fallbacks.get(model.name)
        return Model(
            model,
            settings.admission,
            encoders[model.name],
            off_loop,
            transport,
            feed,
            fallback.spill_reason if fallback else None,
            wall_clock,
            random.Random(rng.random()) if rng else None,
            directory.weight,
            settings.autoscaling.hold_s,
        )

    def now_ms() -> int:
        return int(wall_clock() * 1000)

    models = {m.name: build(m) for m in settings.models}
    for model in models.values():
        model.router.explains = True  # to pages and traces
    return Gateway(
        Parts(
            directory=directory,
            models=models,
            account=account or Account(LocalStore(Book(now_ms)), now_ms),
            enricher=enricher,
            classes=[c.name for c in classes],
            metrics=metrics,
            limits=_limits(settings),
            off_loop=off_loop,
            fallbacks=fallbacks,
            slo=slo,
            adapters=AdapterNames(settings.models, digests),
            ledger=ledger,
            tracer=_tracer(settings, models, metrics, wall_clock, rng, shipping),
            answered=answered or Answered(),
            rng=random.Random(0) if rng else random.Random(),
            lazy_class=max(classes, key=lambda each: each.urgency).name,
            ids=ids or random_ids(),
            wall_clock=wall_clock,
        )
    )


def _tracer(
    settings: Settings,
    models: Mapping[str, Model],
    metrics: GatewayMetrics,
    wall_clock: Callable[[], float],
    rng: random.Random | None,
    shipping: Shipping | None,
) -> Tracer | None:
    """None where the settings trace nothing."""
    if not settings.tracing.enabled:
        return None
    return Tracer(
        settings.tracing,
        metrics,
        lambda model, replica_id: models[model].pool_of(replica_id),
        asyncio.get_running_loop().time,
        wall_clock,
        random.Random(rng.random()) if rng else random.Random(),
        shipping,
    )


def _limits_of(classes: Sequence[ClassSettings]) -> ClassLimits:
    return ClassLimits(
        {c.name: c.ttft_slo_ms / 1000 for c in classes if c.ttft_slo_ms},
        {c.name: c.tpot_slo_ms / 1000 for c in classes if c.tpot_slo_ms},
    )


def _fallbacks(
    settings: Settings, encoders: Mapping[str, PromptEncoder], slo_s: Mapping[str, float]
) -> dict[str, Fallback]:
    clock = asyncio.get_running_loop().time
    return {
        m.name: Fallback(
            m.name,
            m.fallback,
            slo_s,
            encoders[m.fallback.student].folder,
            clock,
        )
        for m in settings.models
        if m.fallback is not None
    }


def _limits(settings: Settings) -> Limits:
    return Limits(
        settings.server.max_body_bytes,
        settings.gateway.dispatch_attempts,
        settings.server.request_timeout_s,
        settings.gateway.resume_wait_s,
        max_streams=settings.server.max_streams_per_request,
        refuse_unknown_fields=settings.server.unknown_fields == "refuse",
        early_headers_s=settings.server.early_headers_s,
        refusals=RefusalLimits(settings.server.refusals.per_s, settings.server.refusals.at_once),
    )
