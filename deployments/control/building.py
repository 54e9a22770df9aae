"""Puts the control process' application together, as the settings say."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

from fastapi import FastAPI
from sqlalchemy import Engine

from deployments.control.app import Surroundings, build_app
from deployments.control.background import Background, LedgerWriter, RolloutKeeper
from deployments.control.balances import Balances
from deployments.control.boards import Boards
from deployments.control.callers import Callers
from deployments.control.changes import Changes
from deployments.control.entity_features import EntityFeatures
from deployments.control.metrics import ScalingMetrics
from deployments.control.oidc import OidcProviders
from deployments.control.parts import Parts
from deployments.control.principals import Doorkeeper
from deployments.control.store import Store
from deployments.control.webhooks import Webhooks
from deployments.pools import scales
from weir.database import database_url, open_database
from weir.metrics import ControlMetrics
from weir.settings import Settings
from weir.tenancy import Directory, LiveDirectory
from weir.tenancy.database import TenantStore
from weir.tenancy.watch import DirectoryWatch


def build_control(
    settings: Settings,
    environment: Mapping[str, str],
    state: Path,
    now_s: Callable[[], float] = time.time,
    *,
    background: bool = True,
) -> FastAPI:
    """The application, not started. ``now_s``: seconds since the epoch; ``background``: whether it
    does what :mod:`deployments.control.background` has, too.

    Raises:
        ConfigError: the settings cannot be used.
    """
    engine = open_database(database_url(settings.database, environment, state))
    tenants, store = TenantStore(engine, now_s), Store(engine)
    live = LiveDirectory(Directory.of(settings.tenants), now_s)
    callers = Callers(store, live, DirectoryWatch(live, tenants, settings.tenants))
    admin = settings.server.admin
    providers = OidcProviders(admin.oidc)
    doorkeeper = Doorkeeper(admin.key_sha256, callers.find, providers, callers.knows, now_s)
    secret = environment.get("WEIR_INTERNAL_TOKEN", "").encode()
    metrics = ControlMetrics()
    parts = Parts(settings, store, tenants, Changes(store, secret, now_s), now_s)
    around = Surroundings(
        doorkeeper,
        providers,
        EntityFeatures(settings, environment),
        Balances(settings, environment, now_s),
        Boards(settings, environment, now_s),
        _background(settings, environment, engine, callers, metrics) if background else (),
        metrics,
    )
    return build_app(parts, around)


def _background(
    settings: Settings,
    environment: Mapping[str, str],
    engine: Engine,
    callers: Callers,
    metrics: ControlMetrics,
) -> tuple[Background, ...]:
    made: list[Background] = [
        Webhooks(settings, environment, callers.tenants),
        RolloutKeeper(settings, environment, engine),
    ]
    if settings.ledger.enabled:
        made.append(LedgerWriter(settings, environment, engine))
    if scales(settings):
        # The solver takes memory that a platform of fixed numbers has no use for.
        from deployments.control.scaling import ScalingThread

        made.append(ScalingThread(settings, environment, engine, ScalingMetrics(metrics)))
    return tuple(made)
