"""What is looked up when somebody asks for the metrics: gauges of replicas, queues and caches."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from deployments.gateway.handle import Gateway
from deployments.gateway.model import Model
from deployments.gateway.readiness import Answers, DeploymentStates
from deployments.pools import pools_of
from weir.errors import WeirError

_ASK_TIMEOUT_S = 2.0


def set_own_gauges(gateway: Gateway) -> None:
    """What this gateway alone has: its queues, its ledger of tokens, its index."""
    metrics = gateway.metrics
    metrics.kv_stored.clear()  # replicas come and go
    metrics.kv_stale.clear()
    for model in gateway.models.values():
        members = model.router.members
        views = model.router.snapshot().replicas
        outstanding = sum(view.load.outstanding_tokens for view in views)
        metrics.outstanding.labels(model.name).set(outstanding)
        for stats in model.dispatcher.queue.stats():
            metrics.waiting.labels(model.name, stats.name).set(stats.waiting)
            metrics.running.labels(model.name, stats.name).set(stats.in_flight)
            metrics.tenants_waiting.labels(model.name, stats.name).set(stats.tenants_waiting)
        blocks = sum(model.router.index.blocks(info.replica_id) for info in members)
        metrics.indexed_blocks.labels(model.name).set(blocks)
        error = model.router.latency.error()
        errors = {"ttft": error.ttft_relative, "tpot": error.tpot_relative}
        for quantity, value in errors.items():
            metrics.latency_error.labels(model.name, quantity).set(value)
        _set_kv_events(gateway, model)


def _set_kv_events(gateway: Gateway, model: Model) -> None:
    index, stale = model.router.index, model.router.index.stale
    for info in model.router.members:
        if (told := index.confirmed(info.replica_id)) is not None:
            gateway.metrics.kv_stored.labels(model.name, info.replica_id).set(told)
            broken = info.replica_id in stale
            gateway.metrics.kv_stale.labels(model.name, info.replica_id).set(broken)


def set_shared_gauges(gateway: Gateway) -> None:
    """What every gateway sees alike: the replicas."""
    _set_usage(gateway)
    _set_adapters(gateway)
    _set_roles(gateway)
    for model in gateway.models.values():
        gateway.metrics.replicas.labels(model.name).set(len(model.router.members))


def _set_adapters(gateway: Gateway) -> None:
    gauge = gateway.metrics.adapter_loads
    gauge.clear()  # replicas come and go
    for model in gateway.models.values():
        for replica_id, loads in model.router.adapters.loads().items():
            gauge.labels(model.name, replica_id).set(loads)


def _set_roles(gateway: Gateway) -> None:
    gauge = gateway.metrics.replicas_by_role
    gauge.clear()  # replicas come and go
    for model in gateway.models.values():
        for info in model.router.members:
            if info.pool:
                gauge.labels(model.name, info.pool, info.role).inc()
        for role, count in model.fleet.role_changes.items():
            gateway.metrics.role_changes.labels(model.name, role).set(count)


def _set_usage(gateway: Gateway) -> None:
    metrics = gateway.metrics
    metrics.replica_mfu.clear()  # replicas come and go
    metrics.replica_mbu.clear()
    for model in gateway.models.values():
        for view in model.router.snapshot().replicas:
            if view.stats.mfu is not None and view.stats.mbu is not None:
                metrics.replica_mfu.labels(model.name, view.replica_id).set(view.stats.mfu)
                metrics.replica_mbu.labels(model.name, view.replica_id).set(view.stats.mbu)


async def set_part_gauges(
    gateway: Gateway, services: Mapping[str, Answers], states: DeploymentStates
) -> None:
    """Which other parts of the platform answer, and in which states Serve has the replicas."""
    known, answers = await asyncio.gather(
        _states(states), asyncio.gather(*(answers() for answers in services.values()))
    )
    for part, answered in zip(services, answers, strict=True):
        gateway.metrics.part_up.labels(part).set(answered)
    gateway.metrics.part_up.labels("Serve").set(known is not None)
    gateway.metrics.replica_states.clear()
    by_name = {state["name"]: state["replica_states"] for state in known or ()}
    for model in gateway.models.values():
        for pool in pools_of(model.settings):
            for state, count in by_name.get(pool.deployment, {}).items():
                labels = (model.name, pool.name, state)
                gateway.metrics.replica_states.labels(*labels).set(count)


async def _states(states: DeploymentStates) -> list[dict[str, Any]] | None:
    """None: Serve does not say."""
    try:
        async with asyncio.timeout(_ASK_TIMEOUT_S):
            return await states()
    except (WeirError, TimeoutError):
        return None
