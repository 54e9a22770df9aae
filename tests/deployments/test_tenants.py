"""What a tenant and a key may do, as clients see it, and what changes while requests run."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from deployments.gateway.tenants import FILE_VARIABLE, build_watch, describe_directory
from deployments.platform import require_same_base
from deployments.tenants import TenantsOfSettings
from deployments.testing.world import http_world
from deployments.versions import gateway_version
from weir.database import SchemaState, migrate, open_database, schema_state
from weir.errors import ConfigError
from weir.metrics import GatewayMetrics
from weir.settings import ModelSettings, Settings, TenantFields, TenantSettings
from weir.settings.database import DatabaseSettings
from weir.settings.tree import AdapterSettings
from weir.tenancy import Directory, LiveDirectory, Role, hash_key
from weir.tenancy.database import TenantStore
from weir.tenancy.fields import KeyFields, checked_fields
from weir.tenancy.known import read_known
from weir.tenancy.watch import DirectoryWatch

CHAT = {"messages": [{"role": "user", "content": "hello"}]}
PATHS = {
    "chat": ("/v1/chat/completions", CHAT),
    "completions": ("/v1/completions", {"prompt": "hello"}),
    "embeddings": ("/v1/embeddings", {"input": "hello"}),
    "messages": ("/v1/messages", CHAT | {"max_tokens": 4}),
    "responses": ("/v1/responses", {"input": "hello"}),
    "tokenize": ("/tokenize", {"prompt": "hello"}),
    "detokenize": ("/detokenize", {"tokens": [5]}),
    "score": ("/score", {"text_1": "hello", "text_2": "world"}),
    "rerank": ("/rerank", {"query": "hello", "documents": ["world"]}),
    "count_tokens": ("/v1/messages/count_tokens", CHAT),
}
OPEN = AdapterSettings(name="open", source="x")
KEPT = AdapterSettings(name="kept", source="x", tenants=("demo",))


def settings() -> Settings:
    return Settings(
        models=(
            ModelSettings(name="m", source="x", adapters=(OPEN, KEPT)),
            ModelSettings(name="n", source="x"),
        ),
        tenants=(TenantSettings(id="demo", key_sha256=(hash_key("weir_demo"),)),),
    )


class Site:
    """A gateway, and the database of its tenants."""

    def __init__(self, world: Any, store: TenantStore, watch: DirectoryWatch) -> None:
        self.world = world
        self.store = store
        self.watch = watch

    def key(self, tenant: str = "acme", **fields: Any) -> str:
        """A new key, in force."""
        made = self.store.create_key("test", tenant, checked_fields(KeyFields, fields))
        self.watch.look()
        return made.secret

    async def ask(
        self, key: str, endpoint: str = "chat", **fields: Any
    ) -> tuple[int, dict[str, Any]]:
        path, body = PATHS[endpoint]
        told = {"authorization": f"Bearer {key}"}
        whole = {"model": "m", **body, **fields}
        async with self.world.session.post(
            self.world.url + path, json=whole, headers=told
        ) as response:
            return response.status, await response.json()

    async def get(self, key: str, path: str, method: str = "GET") -> tuple[int, dict[str, Any]]:
        told = {"authorization": f"Bearer {key}"}
        async with self.world.session.request(
            method, self.world.url + path, headers=told
        ) as response:
            return response.status, await response.json()


@pytest.fixture
async def site(encoder: Any, tmp_path: Path) -> AsyncIterator[Site]:
    engine = open_database(f"sqlite:///{tmp_path / 'weir.db'}")
    migrate(engine)
    store = TenantStore(engine)
    live = LiveDirectory(Directory.of(settings().tenants), time.time)
    watch = DirectoryWatch(live, store, settings().tenants)
    store.create_tenant("test", "acme", TenantFields())
    watch.look()
    async with http_world(settings(), {"m": encoder, "n": encoder}, directory=live) as world:
        yield Site(world, store, watch)
    engine.dispose()


async def test_a_new_key_works_and_a_revoked_one_does_not_while_streams_go_on(site: Site) -> None:
    replica = await site.world.add_replica("a")
    key = site.key()
    stream = asyncio.ensure_future(
        site.world.post(CHAT | {"stream": True, "id": "long"}, authorization=f"Bearer {key}")
    )
    await _until(lambda: "long" in replica.generator.started)
    replica.generator.say("long", "hello")
    response = await stream
    held = site.store.keys("acme").items[0].key
    site.store.revoke_key("test", held.id)
    site.store.create_tenant("test", "other", TenantFields(weight=5.0))
    site.watch.look()
    status, body = await site.ask(key)
    assert (status, body["error"]["code"]) == (401, "invalid_api_key")
    replica.generator.say("long", "world")
    replica.generator.end("long", "!", count=3)
    raw = (await response.read()).decode()
    events = [line[6:] for line in raw.splitlines() if line.startswith("data: ")]
    assert events[-1] == "[DONE]"
    said = [json.loads(each)["choices"][0]["delta"].get("content") for each in events[:-1]]
    assert "".join(filter(None, said)) == "helloworld!"
    again = asyncio.ensure_future(
        site.world.post(CHAT | {"id": "next"}, authorization=f"Bearer {site.key('other')}")
    )
    await _until(lambda: "next" in replica.generator.started)
    replica.generator.end("next", "x")
    assert (await again).status == 200


async def test_a_key_is_for_its_endpoints_only(site: Site) -> None:
    key = site.key(endpoints=["embeddings"])
    for endpoint in PATHS:
        status, body = await site.ask(key, endpoint)
        error = body.get("error") or body
        if endpoint == "embeddings":
            assert status == 503, "no replica is up: it got that far"
        else:
            assert status == 403, endpoint
            assert endpoint in json.dumps(error)
    for path in ("/v1/responses/resp_x", "/v1/responses/resp_x/input_items"):
        assert (await site.get(key, path))[0] == 403
    assert (await site.get(key, "/v1/models"))[0] == 200


async def test_a_key_that_reads_asks_no_model(site: Site) -> None:
    key = site.key(role=Role.READ_ONLY)
    for endpoint in PATHS:
        assert (await site.ask(key, endpoint))[0] == 403, endpoint
    assert (await site.get(key, "/v1/models"))[0] == 200
    assert (await site.get(key, "/v1/responses/resp_x"))[0] == 404
    assert (await site.get(key, "/v1/responses/resp_x", "DELETE"))[0] == 403
    assert (await site.get(key, "/v1/responses", "DELETE"))[0] == 403


async def test_what_a_key_may_not_use_does_not_exist(site: Site) -> None:
    key = site.key(models=["n"])
    for endpoint in PATHS:
        for name in ("m", "m:open", "nothing"):
            status, body = await site.ask(key, endpoint, model=name)
            assert status == 404, (endpoint, name, body)
            assert f"'{name}' does not exist" in json.dumps(body)
    assert await _listed(site, key) == ["n"]
    assert (await site.get(key, "/v1/models/m"))[0] == 404
    assert (await site.get(key, "/v1/models/n"))[0] == 200
    assert (await site.ask(key, model="n"))[0] == 503


async def test_adapters_follow_the_tenant_and_the_key(site: Site) -> None:
    free, narrow = site.key(), site.key(models=["m:open"])
    assert await _listed(site, free) == ["m", "n", "m:open"]
    assert await _listed(site, narrow) == ["m:open"]
    assert (await site.ask(free, model="m:kept"))[0] == 404
    site.store.update_tenant("test", "acme", {"adapters": ["m:kept"]})
    site.watch.look()
    assert await _listed(site, free) == ["m", "n", "m:open", "m:kept"]
    assert (await site.ask(free, model="m:kept"))[0] == 503
    assert (await site.ask(narrow, model="m:kept"))[0] == 404


async def test_models_of_a_tenant_change_while_it_asks(site: Site) -> None:
    key = site.key()
    assert (await site.ask(key))[0] == 503
    site.store.update_tenant("test", "acme", {"models": ["n"]})
    site.watch.look()
    assert (await site.ask(key))[0] == 404
    site.store.update_tenant("test", "acme", {"models": None, "enabled": False})
    site.watch.look()
    status, body = await site.ask(key)
    assert (status, body["error"]["code"]) == (403, "permission_denied")
    assert (await site.get(key, "/v1/models"))[0] == 403
    site.store.delete_tenant("test", "acme")
    site.watch.look()
    assert (await site.ask(key))[0] == 401


async def test_weights_come_live(site: Site) -> None:
    backlog = site.world.model.dispatcher.queue._backlog
    weigh = backlog.class_named("standard")._weight
    assert weigh("acme") == 1.0
    site.store.update_tenant("test", "acme", {"weight": 4})
    site.watch.look()
    assert weigh("acme") == 4.0


async def test_what_is_kept_is_what_somebody_wants_kept(site: Site) -> None:
    replica = await site.world.add_replica("a")

    async def kept(key: str, number: int, **fields: Any) -> tuple[int, bool]:
        name = f"q{number}"
        asked = asyncio.ensure_future(
            site.world.post(
                {"input": "hello", "id": name, **fields},
                path="/v1/responses",
                authorization=f"Bearer {key}",
            )
        )
        await _until(lambda: name in replica.generator.started)
        replica.generator.end(name, "x")
        made = await (await asked).json()
        status, _ = await site.get(key, f"/v1/responses/{made['id']}")
        return status, made["store"]

    key = site.key()
    assert await kept(key, 1) == (404, False), "nobody asked for it"
    assert await kept(key, 2, store=True) == (200, True), "the client did"
    site.store.update_tenant("test", "acme", {"retention_days": 1})
    site.watch.look()
    assert await kept(key, 3) == (200, True), "the tenant does"
    assert await kept(key, 4, store=False) == (404, False)
    status, told = await site.get(key, "/v1/responses", "DELETE")
    assert (status, told["deleted"]) == (200, 2)
    assert (await site.get(key, "/v1/responses", "DELETE"))[1]["deleted"] == 0


def test_tenants_are_no_part_of_what_restarts_a_gateway() -> None:
    before = settings()
    after = before.model_copy(update={"tenants": (TenantSettings(id="next"),)})
    versions = {gateway_version(each, {}) for each in (before, after)}
    assert len(versions) == 1


def test_another_database_needs_a_restart() -> None:
    other = settings().model_copy(update={"database": DatabaseSettings(url="sqlite:////x")})
    with pytest.raises(ConfigError, match=r"database: .*restart"):
        require_same_base(settings(), other)


def test_the_supervisor_puts_the_settings_where_gateways_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("WEIR_DATABASE_URL", FILE_VARIABLE):
        monkeypatch.setenv(name, "")  # so that what the supervisor sets goes with the test
    tenants = TenantsOfSettings(settings(), tmp_path)
    tenants.start()
    live = LiveDirectory(Directory.of(()), time.time)
    metrics = GatewayMetrics()
    watch = build_watch(settings(), os.environ, live, metrics)
    assert watch is not None
    assert watch.look()
    assert set(live.directory.tenants) == {"demo"}
    assert (tmp_path / "directory.json").exists()
    tenants.put((TenantSettings(id="next", key_sha256=(hash_key("n"),)),))
    assert watch.look()
    assert live.authenticate("Bearer n").tenant.id == "next"
    told = describe_directory(live, watch)
    assert told["revision"] == 2
    assert metrics.registry.get_sample_value("weir_directory_revision") == 2
    age_s = metrics.registry.get_sample_value("weir_directory_age_seconds")
    assert age_s is not None
    assert 0 <= age_s < 60
    store = TenantStore(open_database(os.environ["WEIR_DATABASE_URL"]))
    store.create_tenant("test", "acme", TenantFields())
    with pytest.raises(ConfigError, match="'acme' is defined in the settings and in the database"):
        tenants.put((TenantSettings(id="acme"),))
    tenants.put((TenantSettings(id="next", key_sha256=(hash_key("n"),)),))
    assert watch.look()
    assert set(live.directory.tenants) == {"next", "acme"}
    tenants.close()


def test_a_database_that_is_away_at_the_start_is_tried_again(
    postgresql: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = postgresql.new_database()
    monkeypatch.setenv("WEIR_DATABASE_URL", url)
    monkeypatch.setenv(FILE_VARIABLE, "")
    now = [0.0]
    postgresql.stop()
    tenants = TenantsOfSettings(settings(), tmp_path, lambda: now[0])
    tenants.start()
    kept = read_known(tmp_path / "directory.json")
    assert kept is not None
    assert [each.id for each in kept.listed] == ["demo"], (
        "for gateways that start before it is back"
    )
    postgresql.start()
    tenants.try_again()
    engine = open_database(url)
    assert schema_state(engine) is SchemaState.EMPTY, "not before some time has passed"
    now[0] += 60
    tenants.try_again()
    assert [each.id for each in TenantStore(engine).settings_tenants()] == ["demo"]
    tenants.close()
    engine.dispose()


def test_without_a_database_tenants_are_those_of_the_settings() -> None:
    live = LiveDirectory(Directory.of(settings().tenants), time.time)
    assert build_watch(settings(), {}, live, GatewayMetrics()) is None


async def _listed(site: Site, key: str) -> list[str]:
    _, body = await site.get(key, "/v1/models")
    return [each["id"] for each in body["data"]]


async def _until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - another task makes it true
            await asyncio.sleep(0.005)
