"""The control process' application in this process: a real database, no sockets."""

from __future__ import annotations

import dataclasses
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI

from deployments.control.building import build_control
from weir.database import open_database
from weir.settings import Settings, parse_settings
from weir.settings.tenants import TenantFields
from weir.tenancy import Role, hash_key
from weir.tenancy.database import TenantStore
from weir.tenancy.fields import KeyFields

START_S = 1_796_083_200.0
OPERATOR = "weir_operators-key"
IN_SETTINGS = "weir_key-of-the-settings"


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def settings_of(**server: Any) -> Settings:
    """A model with a student and adapters, features, a tenant of the settings."""
    return parse_settings(
        {
            "server": {"admin": {"key_sha256": [hash_key(OPERATOR)], **server}},
            "models": [
                {
                    "name": "big",
                    "source": "builtin:teacher",
                    "engine": {"mode": "stub"},
                    "price": {"replica_usd_per_hour": 2.5, "input_usd_per_million_tokens": 0.1},
                    "fallback": {"student": "small"},
                    "adapters": [
                        {"name": "open", "source": "/adapters/open"},
                        {"name": "own", "source": "/adapters/own", "tenants": ["listed"]},
                    ],
                },
                {"name": "small", "source": "builtin:student", "engine": {"mode": "stub"}},
            ],
            "tenants": [{"id": "listed", "key_sha256": [hash_key(IN_SETTINGS)], "models": ["big"]}],
        },
        "test",
    )


def settings_beside(redis_url: str) -> Settings:
    """The same, with the embedded Redis at the port of the URL."""
    settings = settings_of()
    port = int(redis_url.rpartition(":")[2].partition("/")[0])
    return settings.model_copy(update={"redis": settings.redis.model_copy(update={"port": port})})


@dataclasses.dataclass
class Clock:
    """Seconds since the epoch, as the test says."""

    now_s: float = START_S

    def __call__(self) -> float:
        return self.now_s


@dataclasses.dataclass
class World:
    """``keys``: of the tenants ``acme`` and ``other``, by tenant and role."""

    app: FastAPI
    http: httpx.AsyncClient
    store: TenantStore
    clock: Clock
    keys: dict[tuple[str, Role], str]
    ids: dict[tuple[str, Role], str]

    async def ask(
        self, method: str, path: str, key: str | None = OPERATOR, **more: Any
    ) -> httpx.Response:
        """One request. Keyword arguments are httpx's."""
        headers = dict(more.pop("headers", {}))
        if key is not None:
            headers["authorization"] = f"Bearer {key}"
        return await self.http.request(method, path, headers=headers, **more)


@asynccontextmanager
async def running(url: str, settings: Settings) -> AsyncIterator[World]:
    """The application on that database, with two tenants that have a key of each role."""
    clock = Clock()
    engine = open_database(url)
    store = TenantStore(engine, clock)
    keys, ids = {}, {}
    for tenant in ("acme", "other"):
        store.create_tenant("test", tenant, TenantFields())
        for role in Role:
            made = store.create_key("test", tenant, KeyFields(name=role.value, role=role))
            keys[tenant, role], ids[tenant, role] = made.secret, made.stored.key.id
    environment = {"WEIR_DATABASE_URL": url, "WEIR_INTERNAL_TOKEN": "internal"}
    app = build_control(settings, environment, Path("/nowhere"), clock, background=False)
    transport = httpx.ASGITransport(app=app)
    try:
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://control") as client,
        ):
            yield World(app, client, store, clock, keys, ids)
    finally:
        engine.dispose()
