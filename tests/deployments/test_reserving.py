"""A tenant that is far from all its bounds does not wait for Redis; what Redis then says holds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from deployments.gateway.accounts import Account, Book, LocalStore
from deployments.gateway.accounts.amounts import Ask, Code, Reply, Spent
from deployments.gateway.accounts.known import AMPLE, Known
from deployments.gateway.prompts import PromptEncoder
from deployments.testing.cluster import until
from deployments.testing.world import KEY, World, http_world
from weir.settings import Settings
from weir.tenancy import hash_key

CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "hello world"}], "max_tokens": 10}
PROMPT_TOKENS = 6
NOW_MS = 1_795_776_612_000


class SlowStore(LocalStore):
    """Counts at once, and answers while ``open`` is set. ``refuse``: the next answer is that the
    tenant's quota is used up, by whom gateways have not heard of."""

    def __init__(self) -> None:
        super().__init__(Book(lambda: NOW_MS))
        self.open = asyncio.Event()
        self.open.set()
        self.refuse = False
        self.asked: list[Ask] = []
        self._known = Known(lambda: NOW_MS)

    def known(self, tenant: str) -> Known | None:
        return self._known

    async def reserve(self, ask: Ask) -> Reply:
        self.asked.append(ask)
        if self.refuse:
            await self.open.wait()
            return Reply(Code.QUOTA, 0, 3, 60_000, NOW_MS, 0, ())
        reply = self.book.reserve(ask)
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            self.settle(ask.tenant, [Spent(hold.id) for hold in ask.holds])
            raise
        self._known.heard(ask, reply)
        return reply


@asynccontextmanager
async def bounded(encoder: PromptEncoder, **tenant: Any) -> AsyncIterator[tuple[World, SlowStore]]:
    """A gateway whose only tenant is bounded like that, and a replica."""
    store = SlowStore()
    settings = Settings.model_validate(
        {
            "models": [{"name": "m", "source": "x"}],
            "tenants": [{"id": "t", "key_sha256": [hash_key(KEY)], **tenant}],
            "tracing": {"recent": 100, "sample_ratio": 1.0},
        }
    )
    account = Account(store, lambda: NOW_MS)
    async with http_world(settings, {"m": encoder}, account=account) as world:
        await world.add_replica("a")
        yield world, store


async def answered(world: World, stream: bool = False) -> Any:
    """The response, of two tokens."""
    pending = asyncio.ensure_future(world.post({**CHAT, "stream": stream}))
    generator: Any = world.replicas[0].generator
    await until(lambda: "r1" in generator.started)
    generator.end("r1", "yes", count=2)
    response = await pending
    await response.read()
    return response


QUOTAS = {"requests_per_day": 100, "output_tokens_per_day": 10_000, "concurrent_requests": 20}


@pytest.mark.parametrize("stream", [False, True])
async def test_a_replica_computes_while_the_account_is_asked_and_shows_nothing(
    encoder: PromptEncoder, stream: bool
) -> None:
    async with bounded(encoder, quotas=QUOTAS) as (world, store):
        assert (await answered(world)).headers["x-ratelimit-remaining-requests"] == "99"
        store.open.clear()
        generator: Any = world.replicas[0].generator
        pending = asyncio.ensure_future(world.post({**CHAT, "stream": stream}))
        await until(lambda: "r1" in generator.started)
        generator.say("r1", "so ")
        generator.end("r1", "yes", count=2)
        await asyncio.sleep(0.05)
        assert not pending.done()
        store.open.set()
        response = await pending
        assert "so yes" in await response.text() or stream
        assert response.headers["x-ratelimit-remaining-requests"] == "98"
        await until(lambda: store.book.open_holds() == 0)
        counted = store.book.counted("t", "t")
        assert (counted.daily, counted.concurrent) == ((2, 2 * PROMPT_TOKENS, 4), 0)
        tracer = world.gateway.parts.tracer
        assert tracer is not None
        await until(lambda: len(tracer.recent.find("r1")) == 2)
        spans = {span.name: span for span in tracer.recent.find("r1")[0].spans}
        assert spans["reserve"].end_s > spans["queue"].end_s >= spans["queue"].start_s
        assert spans["reserve"].start_s == spans["queue"].start_s == spans["tokenize"].end_s


@pytest.mark.parametrize("stream", [False, True])
async def test_a_refusal_breaks_the_attempt_off(encoder: PromptEncoder, stream: bool) -> None:
    async with bounded(encoder, quotas=QUOTAS) as (world, store):
        await answered(world)
        store.open.clear()
        store.refuse = True
        generator: Any = world.replicas[0].generator
        pending = asyncio.ensure_future(world.post({**CHAT, "stream": stream, "n": 2}))
        await until(lambda: {"r1-0", "r1-1"} <= generator.started.keys())
        generator.say("r1-0", "so ")
        store.open.set()
        response = await pending
        assert response.status == 429
        assert (await response.json())["error"]["code"] == "rate_limit_exceeded"
        await until(lambda: set(generator.aborted) == {"r1-0", "r1-1"})
        assert world.outstanding() == 0
        assert store.book.open_holds() == 0
        assert store.book.counted("t", "t").daily == (1, PROMPT_TOKENS, 2)


async def test_a_client_that_leaves_before_the_answer_pays_for_what_was_made(
    encoder: PromptEncoder,
) -> None:
    async with bounded(encoder, quotas=QUOTAS) as (world, store):
        await answered(world)
        store.open.clear()
        generator: Any = world.replicas[0].generator
        pending = asyncio.ensure_future(world.post({**CHAT, "stream": True}))
        await until(lambda: "r1" in generator.started)
        generator.say("r1", "so ", tokens=3)
        await asyncio.sleep(0.05)
        pending.cancel()
        await until(lambda: "r1" in generator.aborted)
        store.open.set()
        await until(lambda: store.book.open_holds() == 0)
        counted = store.book.counted("t", "t")
        assert (counted.daily, counted.concurrent) == ((2, 2 * PROMPT_TOKENS, 5), 0)


@pytest.mark.parametrize(
    "quotas",
    [
        {"requests_per_day": 1 + AMPLE - 1},
        {"output_tokens_per_day": 2 + 10 * AMPLE - 1},
        {"prompt_tokens_per_minute": PROMPT_TOKENS * (1 + AMPLE) - 1},
        {"concurrent_requests": AMPLE - 1},
    ],
)
async def test_near_a_bound_nothing_begins_before_it_is_reserved(
    encoder: PromptEncoder, quotas: dict[str, int]
) -> None:
    async with bounded(encoder, quotas=quotas) as (world, store):
        await answered(world)
        store.open.clear()
        generator: Any = world.replicas[0].generator
        pending = asyncio.ensure_future(world.post(dict(CHAT)))
        await until(lambda: len(store.asked) == 2)
        await asyncio.sleep(0.05)
        assert "r1" not in generator.started
        store.open.set()
        await until(lambda: "r1" in generator.started)
        generator.end("r1", "yes", count=2)
        assert (await pending).status == 200


async def test_the_first_request_waits_as_nothing_is_known_yet(encoder: PromptEncoder) -> None:
    async with bounded(encoder, quotas=QUOTAS) as (world, store):
        store.open.clear()
        pending = asyncio.ensure_future(world.post(dict(CHAT)))
        await until(lambda: len(store.asked) == 1)
        await asyncio.sleep(0.05)
        generator: Any = world.replicas[0].generator
        assert not generator.started
        store.open.set()
        await until(lambda: "r1" in generator.started)
        generator.end("r1", "yes", count=2)
        assert (await pending).status == 200


async def test_requests_at_the_same_time_count_against_the_room(encoder: PromptEncoder) -> None:
    quotas = {"requests_per_day": 1 + 3 * AMPLE}
    async with bounded(encoder, quotas=quotas) as (world, store):
        await answered(world)
        store.open.clear()
        generator: Any = world.replicas[0].generator
        ids = [f"q{number}" for number in range(6)]
        pending = [asyncio.ensure_future(world.post({**CHAT, "id": each})) for each in ids]
        await until(lambda: len(store.asked) == 7)
        await asyncio.sleep(0.05)
        assert len(generator.started) == 3
        store.open.set()
        await until(lambda: len(generator.started) == 6)
        for each in ids:
            generator.end(each, "yes", count=2)
        assert [(await each).status for each in pending] == [200] * 6
