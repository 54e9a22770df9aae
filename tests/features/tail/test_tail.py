"""The long-tail queue on a real Redis."""

from __future__ import annotations

import asyncio
import collections
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis

from deployments.redis_server import RedisServer
from features.tail import TailEntity, TailQueue, TailSettings

DATABASE = 5


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def redis(redis_server: RedisServer) -> AsyncIterator[Redis]:
    async with Redis(port=redis_server.port, db=DATABASE) as client:
        await client.flushdb()
        yield client


async def note(queue: TailQueue, *entities: str, tenant: str = "acme") -> None:
    for entity in entities:
        await queue.note(tenant, entity)
    await queue.flush()


async def test_entities_are_counted_once_each_and_taken_by_count(redis: Redis) -> None:
    queue = TailQueue(redis)
    await note(queue, "1", "2", "2", "3", "3")
    await note(queue, "3")
    assert await queue.waiting() == {"acme": 3}
    assert await queue.take(2) == [TailEntity("acme/3", 3), TailEntity("acme/2", 2)]
    assert await queue.take(9) == [TailEntity("acme/1", 1)]
    assert await queue.take(9) == []


async def test_what_is_being_worked_on_is_not_queued_again_until_done(redis: Redis) -> None:
    queue = TailQueue(redis)
    await note(queue, "1")
    await queue.take(1)
    await note(queue, "1", "1")
    assert await queue.waiting() == {"acme": 0}
    await queue.done(["acme/1"])
    await note(queue, "1")
    assert await queue.waiting() == {"acme": 1}


async def test_a_dead_generators_entities_come_back_with_their_counts(redis: Redis) -> None:
    clock = Clock()
    queue = TailQueue(redis, TailSettings(lease_s=60), clock)
    await note(queue, "1", "1", "2")
    await queue.take(9)
    clock.now += 59
    assert await queue.take(9) == []
    clock.now += 2
    assert await queue.take(9) == [TailEntity("acme/1", 2), TailEntity("acme/2", 1)]


async def test_taking_merges_tenants_by_count(redis: Redis) -> None:
    queue = TailQueue(redis)
    await note(queue, "1", "1", tenant="acme")
    await note(queue, "1", "1", "1", "2", tenant="globex")
    assert [each.entity for each in await queue.take(3)] == ["globex/1", "acme/1", "globex/2"]


async def test_a_flood_of_one_tenant_leaves_the_others_alone(redis: Redis) -> None:
    queue = TailQueue(redis, TailSettings(capacity=10))
    await note(queue, "7", tenant="acme")
    await note(queue, *(str(n) for n in range(500)), tenant="globex")
    assert await queue.waiting() == {"acme": 1, "globex": 10}


async def test_a_newcomer_replaces_the_least_frequent(redis: Redis) -> None:
    queue = TailQueue(redis, TailSettings(capacity=2))
    await note(queue, "1", "1", "1", "2")
    await note(queue, "3")
    assert [each.entity for each in await queue.take(2)] == ["acme/1", "acme/3"]


@given(st.lists(st.integers(0, 12), max_size=60))
async def test_frequent_entities_are_never_pushed_out(
    redis_server: RedisServer, stream: list[int]
) -> None:
    """The Space-Saving bound: whatever makes up more than 1/capacity of the stream is in."""
    capacity = 4
    async with Redis(port=redis_server.port, db=DATABASE) as client:
        await client.flushdb()
        queue = TailQueue(client, TailSettings(capacity=capacity))
        for number in stream:
            await note(queue, str(number))
        held = {each.entity: each.count for each in await queue.take(100)}
    counts = collections.Counter(f"acme/{number}" for number in stream)
    frequent = {entity for entity, count in counts.items() if count > len(stream) / capacity}
    assert frequent <= set(held)
    assert len(held) <= capacity
    assert all(held[entity] >= counts[entity] for entity in held)


async def test_noting_never_waits(redis: Redis) -> None:
    queue = TailQueue(redis)
    step = queue.note("acme", "1")
    with pytest.raises(StopIteration):
        step.send(None)
    await queue.aclose()
    assert await queue.waiting() == {"acme": 1}


async def test_the_buffer_writes_itself_out(redis: Redis) -> None:
    queue = TailQueue(redis, TailSettings(flush_interval_s=0.0))
    await queue.note("acme", "1")
    while not await queue.waiting():
        pass
    assert queue.dropped == 0


async def test_a_full_buffer_drops_and_counts(redis: Redis) -> None:
    told: list[int] = []
    queue = TailQueue(redis, TailSettings(buffer_entities=2), on_drop=told.append)
    for entity in ("1", "2", "3", "1", "4"):
        await queue.note("acme", entity)
    await queue.aclose()
    assert (queue.dropped, told) == (2, [1, 1])
    assert await queue.take(9) == [TailEntity("acme/1", 2), TailEntity("acme/2", 1)]


async def test_without_redis_requests_go_on_and_drops_are_counted() -> None:
    async with Redis(port=1) as nobody:
        queue = TailQueue(nobody, TailSettings(flush_timeout_s=0.5))
        await queue.note("acme", "1")
        await queue.note("acme", "1")
        await queue.aclose()
    assert queue.dropped == 2


async def test_a_flush_that_is_cancelled_counts_what_it_held() -> None:
    async def never_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(never_answer, "127.0.0.1", 0)
    async with server, Redis(port=server.sockets[0].getsockname()[1]) as mute:
        queue = TailQueue(mute, TailSettings(flush_timeout_s=60))
        await queue.note("acme", "1")
        flushing = asyncio.create_task(queue.flush())
        await asyncio.sleep(0.05)
        flushing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await flushing
        assert queue.dropped == 1
        await queue.aclose()


async def test_ids_that_cannot_be_entities_are_ignored(redis: Redis) -> None:
    queue = TailQueue(redis)
    await note(queue, "", "x" * 300, "\ud800")
    assert await queue.waiting() == {}
