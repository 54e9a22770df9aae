"""Steps of budgets are told to a local HTTP server, until it takes them or they are given up."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from redis.asyncio import Redis, RedisCluster

from deployments.control.webhooks import SECRET_VARIABLE, Webhooks
from deployments.testing.cluster import until
from deployments.webhooks import BudgetWebhooks, Persistence, accounts_client
from tests.deployments.accounts.conftest import free_port, started
from weir.accounts import AccountKeys
from weir.settings import Settings
from weir.tenancy import Budget, Tenant

NOW_S = 1_800_000_000.0
FIELD = "24322:80"
WRITTEN = b'{"spent":"83000000001","budget":"100000000000","at":"1799999999000"}'
SOON = Persistence(period_s=0.01, pause_s=0.01, most_pause_s=0.02, timeout_s=5.0)


class Receiver:
    """Answers as it is told, then with 204."""

    def __init__(self) -> None:
        self.answers: list[int] = []
        self.heard: list[tuple[Any, dict[str, str], bytes]] = []
        self.url = ""

    async def take(self, request: web.Request) -> web.Response:
        raw = await request.read()
        self.heard.append((json.loads(raw), dict(request.headers), raw))
        status = self.answers.pop(0) if self.answers else 204
        headers = {"location": f"{self.url}/elsewhere"} if status == 302 else None
        return web.Response(status=status, headers=headers)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    made, app = Receiver(), web.Application()
    app.router.add_post("/{path:.*}", made.take)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    yield made
    await runner.cleanup()


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Any:
    server = started(tmp_path_factory.mktemp("webhooks-redis"), free_port())
    yield server.url
    server.stop()


Sending = Callable[..., Any]


@pytest.fixture
async def sending(redis_url: str) -> AsyncIterator[Sending]:
    """Runs the sender for a tenant with that URL, while a step of its is due."""
    redis = accounts_client(redis_url)
    assert isinstance(redis, Redis)
    await redis.flushall()

    @asynccontextmanager
    async def send(url: str | None, **fields: Any) -> AsyncIterator[BudgetWebhooks]:
        await redis.hset(AccountKeys.of("t").steps, FIELD, WRITTEN)  # type: ignore[misc]
        listed = [Tenant("other"), Tenant("t", budget=Budget(Decimal(100), webhook_url=url))]

        async def tenants() -> list[Tenant]:
            return listed

        async with aiohttp.ClientSession() as session:
            made = BudgetWebhooks(
                redis,
                session,
                tenants,
                lambda: NOW_S,
                persistence=fields.pop("persistence", SOON),
                **fields,
            )
            task = asyncio.ensure_future(made.run())
            try:
                yield made
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    async def write(at_ms: int) -> None:
        text = b'{"spent":"1","budget":"2","at":"%d"}' % at_ms
        await redis.hset(AccountKeys.of("t").steps, FIELD, text)  # type: ignore[misc]

    send.write = write  # type: ignore[attr-defined]
    send.due = lambda: redis.hlen(AccountKeys.of("t").steps)  # type: ignore[attr-defined]
    yield send
    await redis.aclose()


async def gone(sending: Any) -> None:
    async with asyncio.timeout(20):
        while await sending.due():  # noqa: ASYNC110 - the sender makes it true
            await asyncio.sleep(0.01)


async def test_a_step_is_told_once_with_a_signature(sending: Any, receiver: Receiver) -> None:
    async with sending(receiver.url, secret=b"hush"):
        await gone(sending)
        await asyncio.sleep(0.1)
    [(body, headers, raw)] = receiver.heard
    assert body == {
        "id": "t:2026-11:80",
        "type": "budget.step_reached",
        "timestamp": 1_799_999_999,
        "data": {
            "tenant": "t",
            "month": "2026-11",
            "percent": 80,
            "spent_usd": "83.000000001",
            "budget_usd": "100",
        },
    }
    assert headers["webhook-id"] == "t:2026-11:80"
    signed = b"t:2026-11:80.%d.%b" % (NOW_S, raw)
    right = base64.b64encode(hmac.new(b"hush", signed, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{right}"


async def test_a_receiver_that_fails_is_tried_again(sending: Any, receiver: Receiver) -> None:
    receiver.answers = [500, 429, 302, 503]
    async with sending(receiver.url) as made:
        await gone(sending)
    assert len({headers["webhook-id"] for _, headers, _ in receiver.heard}) == 1
    assert (len(receiver.heard), made.counts.sent, made.counts.failed) == (5, 1, 4)


async def test_a_receiver_that_is_away_is_tried_again(sending: Any, receiver: Receiver) -> None:
    async with sending(f"http://127.0.0.1:{free_port()}/") as made:
        await until(lambda: made.counts.failed > 2)
        assert await sending.due() == 1


async def test_a_refusal_is_final(sending: Any, receiver: Receiver) -> None:
    receiver.answers = [410]
    async with sending(receiver.url) as made:
        await gone(sending)
    assert (len(receiver.heard), made.counts.given_up) == (1, 1)


async def test_nobody_is_tried_for_ever(sending: Any, receiver: Receiver) -> None:
    async with sending(receiver.url, persistence=Persistence(period_s=0.01, give_up_s=0.5)) as m:
        await gone(sending)
    assert (receiver.heard, m.counts.given_up) == ([], 1)


async def test_without_a_receiver_a_step_is_forgotten(sending: Any, receiver: Receiver) -> None:
    async with sending(None) as made:
        await gone(sending)
    assert (receiver.heard, made.counts.given_up) == ([], 0)


async def test_the_control_process_sends_while_it_runs(
    sending: Any, receiver: Receiver, redis_url: str
) -> None:
    tenant = Tenant("t", budget=Budget(Decimal(100), webhook_url=receiver.url))

    async def tenants() -> list[Tenant]:
        return [tenant]

    settings = Settings.model_validate({"models": [{"name": "m", "source": "x"}]})
    environment = {"WEIR_ACCOUNTS_REDIS_URL": redis_url, SECRET_VARIABLE: "hush"}
    webhooks = Webhooks(settings, environment, tenants)
    await sending.write(int(time.time() * 1000))
    webhooks.start()
    await gone(sending)
    await webhooks.close()
    [(_, headers, _)] = receiver.heard
    assert headers["webhook-signature"].startswith("v1,")


async def test_clients_follow_the_url(tmp_path: Path) -> None:
    single = accounts_client("redis://user:secret@10.0.0.1:7000/3")
    assert isinstance(single, Redis)
    told = single.connection_pool.connection_kwargs
    assert (told["host"], told["port"], told["db"]) == ("10.0.0.1", 7000, 3)
    assert (told["username"], told["password"]) == ("user", "secret")
    socket = accounts_client(f"unix://{tmp_path}/redis?db=2")
    assert isinstance(socket, Redis)
    assert socket.connection_pool.connection_kwargs["path"] == f"{tmp_path}/redis"
    assert isinstance(accounts_client("redis+cluster://10.0.0.1:7000,10.0.0.2:7000"), RedisCluster)
    master = accounts_client("redis+sentinel://10.0.0.1/main/1")
    assert isinstance(master, Redis)
    assert master.connection_pool.service_name == "main"  # type: ignore[attr-defined]
