"""``/health`` and ``/ready``. Everybody learns whether the gateway is alive and ready; what is
missing, by name, is for those who may know the names."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from fastapi import FastAPI, Request

from deployments.gateway.callers import Callers
from deployments.gateway.handle import Gateway
from deployments.gateway.model import Model, may_sleep
from deployments.pools import pools_of
from weir.errors import NoReplicaError, WeirError

_ASK_TIMEOUT_S = 2.0

DeploymentStates = Callable[[], Awaitable[list[dict[str, Any]]]]
Answers = Callable[[], Awaitable[bool]]


def add_health(
    app: FastAPI,
    gateway: Gateway,
    callers: Callers,
    states: DeploymentStates,
    services: Mapping[str, Answers],
    directory: Callable[[], dict[str, Any]],
) -> None:
    """``services``: what the gateway uses and can do without for a while, by name. ``directory``:
    how old what it knows of the tenants is; empty where that does not change."""

    @app.get("/health", tags=["platform"], summary="Is the gateway alive?")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get(
        "/ready",
        tags=["platform"],
        summary="Can every model take a request?",
        responses={503: {"description": "Not yet; with a key, the message names what is missing."}},
    )
    async def ready(request: Request) -> dict[str, Any]:
        seen = {name for name in gateway.models if callers.may_see(request, name)}
        missing = _without_replica(gateway)
        away = await _away(services) if callers.watches(request) else []
        if missing:
            starting = await _replica_states(states) if callers.watches(request) else {}
            named = [_lacks(gateway.models[name], starting) for name in missing if name in seen]
            raise NoReplicaError(
                " ".join(["Not every model can take a request yet.", *named, *away])
            )
        if not seen:
            return {"status": "ready"}
        replicas = {n: len(m.router.members) for n, m in gateway.models.items() if n in seen}
        told: dict[str, Any] = {"status": "ready", "replicas": replicas}
        if callers.watches(request) and (known := directory()):
            told["directory"] = known
        return told | ({"missing": away} if away else {})


def _without_replica(gateway: Gateway) -> list[str]:
    return sorted(
        name
        for name, model in gateway.models.items()
        if model.settings.replicas
        and not model.router.members
        and not may_sleep(model.settings)
        and not gateway.covers(name)
    )


def _lacks(model: Model, states: Mapping[str, Mapping[str, int]]) -> str:
    counts: Counter[str] = Counter()
    for pool in pools_of(model.settings):
        counts.update(states.get(pool.deployment, {}))
    told = ", ".join(f"{count} {state.lower()}" for state, count in sorted(counts.items()))
    return f"No replica of {model.name!r} is up" + (f" ({told})." if told else ".")


async def _replica_states(states: DeploymentStates) -> dict[str, dict[str, int]]:
    """How many replicas of each deployment are in which state; empty where Serve does not say."""
    try:
        async with asyncio.timeout(_ASK_TIMEOUT_S):
            return {state["name"]: state["replica_states"] for state in await states()}
    except (WeirError, TimeoutError):
        return {}


async def _away(services: Mapping[str, Answers]) -> list[str]:
    answers = await asyncio.gather(*(answers() for answers in services.values()))
    told = zip(services, answers, strict=True)
    return [f"{name} does not answer." for name, answered in told if not answered]
