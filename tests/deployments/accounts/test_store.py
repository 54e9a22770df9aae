"""Gateways over a real Redis: exact together, and exact again after whatever goes wrong."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import msgspec
import pytest
import redis as redis_client

from deployments.gateway.accounts import Account, RedisStore, Tab
from deployments.gateway.accounts.building import now_ms, redis_store
from deployments.redis_server import RedisServer
from deployments.testing.cluster import until
from features.online import ClusterLink
from tests.conformance.redis_nodes import make_cluster, nodes
from tests.deployments.accounts.conftest import free_port, started
from tests.deployments.accounts.gateways import RICH, TENANT, Gateway, gateways, most, proxied
from weir.accounts import AccountKeys
from weir.cost import Used
from weir.errors import AccountAwayError, InsufficientQuotaError, RateLimitError
from weir.metrics import GatewayMetrics
from weir.settings import Settings
from weir.tenancy import Quotas, Tenant


def counted(client: Any, tenant: str = "t", scope: str = "t") -> list[int]:
    """What Redis has of the day: requests, prompt and output tokens; then concurrent requests."""
    raw = client.hget(AccountKeys.of(tenant).used, scope)
    return list(msgspec.msgpack.decode(raw)[5:]) if raw else [0, 0, 0, 0]


def held(client: Any, tenant: str = "t") -> int:
    """Open reservations."""
    listed = client.hgetall(AccountKeys.of(tenant).held).items()
    taken_back = 0x91  # MessagePack's array of one
    return sum(raw[0] != taken_back for name, raw in listed if b":" in name)


async def use(tab: Tab, used: int, output: int = 100) -> None:
    """Reserve so many output tokens, and use some of them."""
    charge = await tab.reserve(most(output=output))
    tab.close([(charge, Used(10, 0, used), 0)], counts=True)


async def settled(*listed: Gateway) -> None:
    await until(lambda: not any(gateway.store.unsettled for gateway in listed))


async def test_four_gateways_together_let_in_what_one_would(
    redis_server: RedisServer, redis: Any
) -> None:
    async with gateways(redis_server.port, 4) as four:
        granted = 0

        async def ask(gateway: Gateway) -> None:
            nonlocal granted
            for _ in range(40):
                with contextlib.suppress(RateLimitError):
                    await gateway.open().reserve(most(output=1))
                    granted += 1

        await asyncio.gather(*(ask(gateway) for gateway in four for _ in range(2)))
        assert granted == 100
        assert counted(redis) == [100, 1000, 100, 100]


async def test_far_from_its_bounds_a_tenant_is_settled_in_few_calls(
    redis_server: RedisServer, redis: Any
) -> None:
    tenant = Tenant("t", quotas=Quotas(requests_per_day=1_000, output_tokens_per_day=100_000))
    async with gateways(redis_server.port) as (gateway,):
        await use(gateway.open(tenant), 100)
        await settled(gateway)
        before = _calls(redis)
        tabs = [gateway.open(tenant) for _ in range(10)]
        assert all(tab.ample(most()) for tab in tabs)
        charges = await asyncio.gather(*(tab.reserve_soon(most()) for tab in tabs))
        assert counted(redis) == [11, 110, 1_100, 10]
        for tab, charge in zip(tabs, charges, strict=True):
            tab.close([(charge, Used(10, 0, 40), 0)], counts=True)
        await settled(gateway)
        assert counted(redis) == [11, 110, 500, 0]
        assert _calls(redis) - before <= 12  # ten to reserve, and one or two to settle
        assert held(redis) == 0


async def test_near_a_bound_what_was_kept_is_settled_first(
    redis_server: RedisServer, redis: Any
) -> None:
    tenant = Tenant("t", quotas=Quotas(output_tokens_per_day=1_000))
    async with gateways(redis_server.port) as (gateway,):
        await use(gateway.open(tenant), 0)
        await settled(gateway)
        tab = gateway.open(tenant)
        assert tab.ample(most())
        charge = await tab.reserve_soon(most())
        tab.close([(charge, Used(10, 0, 10), 0)], counts=True)
        near = gateway.open(tenant)
        assert not near.ample(most(output=990))
        await near.reserve(most(output=990))
        assert counted(redis)[2] == 1_000


def _calls(client: Any) -> int:
    """Calls of the script so far."""
    return int(client.info("commandstats")["cmdstat_evalsha"]["calls"])


async def test_four_gateways_together_never_spend_more_than_the_budget(
    redis_server: RedisServer, redis: Any
) -> None:
    async with gateways(redis_server.port, 4) as four:
        spent = 0

        async def ask(gateway: Gateway, number: int) -> None:
            nonlocal spent
            for i in range(30):
                tab, used = gateway.open(RICH), (number * 7 + i) % 20
                try:
                    charge = await tab.reserve(most(nano_usd=20))
                except InsufficientQuotaError:
                    continue
                await asyncio.sleep(0)
                tab.close([(charge, Used(1, 0, 1), used)], counts=True)
                spent += used

        await asyncio.gather(*(ask(gateway, n) for n, gateway in enumerate(four * 3)))
        await settled(*four)
        [_, kept, _] = msgspec.msgpack.decode(redis.hget(AccountKeys.of("rich").used, "$"))
        assert 980 < spent <= 1000
        assert kept == spent
        assert held(redis, "rich") == 0


async def test_a_killed_gateways_reservations_return_and_a_live_ones_stay(
    redis_server: RedisServer, redis: Any
) -> None:
    tenant = Tenant("t", quotas=Quotas(concurrent_requests=2))
    async with gateways(redis_server.port, 3, lease_s=1.0) as (dying, living, other):
        await dying.open(tenant).reserve(most())
        long_one = living.open(tenant)
        charge = await long_one.reserve(most())
        with pytest.raises(RateLimitError, match="concurrent_requests"):
            await other.open(tenant).reserve(most())
        await dying.die()
        await until(lambda: counted(redis)[3] == 1)
        await asyncio.sleep(2.0)  # twice as long as a lease
        assert counted(redis)[3] == 1
        await use(other.open(tenant), 1)
        await settled(other)
        assert counted(redis)[3] == 1
        with pytest.raises(RateLimitError):
            await asyncio.gather(*(other.open(tenant).reserve(most()) for _ in range(2)))
        long_one.close([(charge, Used(10, 0, 7), 0)], counts=True)
        await settled(living)


async def test_what_a_gateway_used_counts_also_if_it_was_taken_for_dead(
    redis_server: RedisServer, redis: Any
) -> None:
    async with gateways(redis_server.port, 2, lease_s=1.0) as (frozen, other):
        tab = frozen.open()
        charge = await tab.reserve(most(output=500))
        assert frozen.store._task is not None
        frozen.store._task.cancel()  # as SIGSTOP does
        await other.open().reserve(most(output=5))
        assert counted(redis) == [2, 20, 505, 2]
        await until(lambda: held(redis) == 2)
        assert counted(redis) == [1, 10, 5, 1]
        tab.close([(charge, Used(10, 0, 300), 0)], counts=True)
        await settled(frozen)
        assert counted(redis) == [2, 20, 305, 1]


async def test_redis_is_killed_and_comes_back(tmp_path: Path) -> None:
    server = started(tmp_path, free_port())
    client = redis_client.Redis(port=server.port, socket_timeout=10)
    try:
        async with gateways(server.port, 2, away_share=0.1) as both:
            one, two = both
            tabs = [(tab := one.open(), await tab.reserve(most(output=50))) for _ in range(3)]
            await use(two.open(), 20)
            await settled(two)
            assert server._process is not None
            server._process.kill()
            server._process.wait()
            await until(lambda: one.link.state == two.link.state == "down")
            for tab, charge in tabs:
                tab.close([(charge, Used(10, 0, 30), 0)], counts=True)
            running = []
            for gateway in both:  # a tenth of 100 requests, each
                running += [
                    (tab := gateway.open(), await tab.reserve(most(output=5))) for _ in range(10)
                ]
                with pytest.raises(AccountAwayError):
                    await gateway.open().reserve(most(output=5))
            for tab, charge in running[::2]:
                tab.close([(charge, Used(10, 0, 2), 0)], counts=True)
            assert one.store.unsettled
            server.start()
            await until(lambda: not one.store._untold and not two.store._untold)
            await settled(one, two)
            # 3 * 30 and 20 from before, 10 * 2 settled, 10 * 5 still reserved
            assert counted(client) == [24, 240, 90 + 20 + 20 + 50, 10]
            for tab, charge in running[1::2]:
                tab.close([(charge, Used(10, 0, 2), 0)], counts=True)
            await settled(one, two)
            assert counted(client) == [24, 240, 90 + 20 + 40, 0]
            assert held(client) == 0
    finally:
        client.close()
        server.stop()


async def test_what_is_known_to_be_used_up_is_refused_while_redis_is_away(
    redis_server: RedisServer, redis: Any
) -> None:
    tenant = Tenant("t", quotas=Quotas(output_tokens_per_day=1000))
    async with proxied(redis_server.port) as proxy, gateways(proxy.port, away_share=0.5) as [one]:
        await use(one.open(tenant), 900, output=900)
        await settled(one)
        await one.open(tenant).reserve(most(output=50))
        await proxy.stop()
        await until(lambda: one.link.state == "down")
        with pytest.raises(RateLimitError, match="output_tokens_per_day") as refused:
            await one.open(tenant).reserve(most(output=51))
        assert 0 < (refused.value.retry_after_s or 0) <= 86_400
        await one.open(tenant).reserve(most(output=40))
        with pytest.raises(AccountAwayError):
            await one.open(tenant).reserve(most(output=40))
        await proxy.start()
        await until(lambda: not one.store._untold)
        assert counted(redis)[2] == 990


async def test_an_acknowledgement_that_is_lost_counts_nothing_twice(
    redis_server: RedisServer, redis: Any
) -> None:
    async with proxied(redis_server.port) as proxy, gateways(proxy.port) as [one]:
        tabs = [(tab := one.open(), await tab.reserve(most())) for _ in range(20)]
        proxy.mute = True
        for tab, charge in tabs:
            tab.close([(charge, Used(10, 0, 7), 0)], counts=True)
        await until(lambda: held(redis) == 0)
        assert one.store.unsettled == 40
        await proxy.stop()
        proxy.mute = False
        await proxy.start()
        await settled(one)
        assert counted(redis) == [20, 200, 140, 0]


async def test_an_answer_that_is_late_is_told_again_and_counted_once(
    redis_server: RedisServer, redis: Any
) -> None:
    async with proxied(redis_server.port) as proxy, gateways(proxy.port, timeout_ms=300) as [one]:
        await use(one.open(), 5)
        await settled(one)
        proxy.mute = True
        tab = one.open()
        charge = await tab.reserve(most())
        assert one.metrics.account_alone.labels("granted")._value.get() == 1
        await until(lambda: held(redis) == 2)
        await proxy.stop()
        proxy.mute = False
        await proxy.start()
        await until(lambda: not one.store._untold)
        assert counted(redis)[0] == 2
        tab.close([(charge, Used(10, 0, 9), 0)], counts=True)
        await settled(one)
        assert counted(redis) == [2, 20, 14, 0]


async def test_who_leaves_while_redis_is_asked_has_reserved_nothing(
    redis_server: RedisServer, redis: Any
) -> None:
    async with proxied(redis_server.port) as proxy, gateways(proxy.port) as [one]:
        proxy.mute = True
        task = asyncio.ensure_future(one.open().reserve(most()))
        await until(lambda: held(redis) == 2)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await until(lambda: held(redis) == 0)
        assert counted(redis) == [0, 0, 0, 0]
        proxy.mute = False
        await proxy.stop()
        await proxy.start()
        await settled(one)
        assert counted(redis) == [0, 0, 0, 0]


async def test_a_redis_that_has_forgotten_the_script_is_given_it(
    redis_server: RedisServer, redis: Any
) -> None:
    async with gateways(redis_server.port) as [one]:
        for expected in (1, 2):
            await use(one.open(), 3)
            await settled(one)
            redis.script_flush()
            assert counted(redis)[0] == expected


async def test_a_tenant_without_quotas_costs_no_call(redis_server: RedisServer) -> None:
    async with gateways(redis_server.port) as [one]:
        assert one.account.open(Tenant("free")) is None
        # One whose only quotas are another model's has nothing to ask, either.
        tab = one.open(Tenant("half", model_quotas={"other": Quotas(requests_per_day=1)}))
        before = one.link.batches
        charge = await tab.reserve(most())
        tab.close([(charge, Used(1, 0, 1), 0)], counts=True)
        await asyncio.sleep(0)
        assert one.link.batches == before
        assert tab.headers("openai") == []


async def test_reservations_of_one_turn_of_the_loop_leave_together(
    redis_server: RedisServer,
) -> None:
    async with gateways(redis_server.port) as [one]:
        before = one.link.batches
        await asyncio.gather(*(one.open().reserve(most(output=1)) for _ in range(50)))
        assert one.link.batches - before <= 5


def store_at(url: str) -> RedisStore:
    settings = Settings.model_validate(
        {"models": [{"name": "m", "source": "x"}], "accounts": {"url": url, "timeout_ms": 5000}}
    )
    return redis_store(settings, {}, GatewayMetrics())


async def test_a_cluster_keeps_each_tenant_on_one_node(tmp_path: Path, redis_server: Any) -> None:
    with nodes(tmp_path) as made:
        ports = make_cluster(made, 3)
        hosts = ",".join(f"127.0.0.1:{port}" for port in ports)
        store = store_at(f"redis+cluster://{hosts}")
        assert isinstance(store.link, ClusterLink)
        store.start()
        try:
            await store.link.wait_until_up()
            await _use_in_turn(store, ports)
        finally:
            await store.aclose()


async def _use_in_turn(store: RedisStore, ports: list[int]) -> None:
    account = Account(store, now_ms)
    tenants = [Tenant(f"t{i}", quotas=TENANT.quotas) for i in range(12)]
    for tenant in tenants:
        tab = account.open(tenant)
        assert tab is not None
        await use(tab, 5)
    await until(lambda: not store.unsettled)
    found: list[set[bytes]] = []
    for port in ports:
        with redis_client.Redis(port=port, socket_timeout=5) as client:
            found.append(set(client.keys("*used")))  # type: ignore[arg-type]
    assert all(found)
    assert sum(map(len, found)) == len(tenants)


async def test_a_failover_behind_sentinels_is_followed(tmp_path: Path, redis_server: Any) -> None:
    with nodes(tmp_path) as made:
        master = made.start()
        replica = made.start("--replicaof", "127.0.0.1", str(master))
        sentinel = made.start(
            config=f"sentinel monitor main 127.0.0.1 {master} 1\n"
            "sentinel down-after-milliseconds main 500\nsentinel failover-timeout main 2000"
        )
        with redis_client.Redis(port=sentinel, socket_timeout=5) as asked:
            await until(lambda: asked.sentinel_slaves("main"))
        store = store_at(f"redis+sentinel://127.0.0.1:{sentinel}/main/0")
        account = Account(store, now_ms)
        store.start()
        await store.link.wait_until_up()
        with redis_client.Redis(port=replica, socket_timeout=5) as client:
            open_ = [account.open(TENANT) for _ in range(4)]
            charges = [(tab, await tab.reserve(most())) for tab in open_ if tab is not None]
            await until(lambda: counted(client)[0] == 4)
            made.stop(master)
            for tab, charge in charges:
                tab.close([(charge, Used(10, 0, 7), 0)], counts=True)
            await until(lambda: not store.unsettled, 60)
            assert counted(client) == [4, 40, 28, 0]
            assert client.info("replication")["role"] == "master"  # type: ignore[index]
        await store.aclose()
