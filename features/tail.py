"""The queue of long-tail entities: asked for today, written about in the next generation run.

One sorted set per tenant, so that no tenant's traffic can push out another's entities. A full set
keeps its most frequent entities by the Space-Saving rule (Metwally, Agrawal and El Abbadi, 2005): a
newcomer replaces the least frequent member and takes over its count, so that whatever makes up more
than 1/capacity of the traffic stays in.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from redis.asyncio import Redis
from redis.exceptions import RedisError

from features.keys import entity_key, split_entity_key

TENANTS: Final = "weir:tail:tenants"
TAKEN: Final = "weir:tail:taken"
TAKEN_COUNTS: Final = "weir:tail:taken-counts"

# KEYS: the tenant's set, the set of tenants, what is being worked on. ARGV: tenant, capacity, then
# member and count alternating. An entity that is being worked on is not queued again.
_NOTE: Final = """
redis.call('SADD', KEYS[2], ARGV[1])
for i = 3, #ARGV, 2 do
  if not redis.call('ZSCORE', KEYS[3], ARGV[i]) then
    local known = redis.call('ZSCORE', KEYS[1], ARGV[i])
    local count = tonumber(ARGV[i + 1])
    if not known and redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[2]) then
      local least = redis.call('ZPOPMIN', KEYS[1])
      count = count + tonumber(least[2])
    end
    redis.call('ZINCRBY', KEYS[1], count, ARGV[i])
  end
end
"""
# KEYS: taken, their counts, then the tenants' sets. ARGV: how many, now. The most frequent first.
_TAKE: Final = """
local found = {}
for k = 3, #KEYS do
  local top = redis.call('ZREVRANGE', KEYS[k], 0, tonumber(ARGV[1]) - 1, 'WITHSCORES')
  for i = 1, #top, 2 do
    found[#found + 1] = {KEYS[k], top[i], tonumber(top[i + 1])}
  end
end
table.sort(found, function(a, b)
  if a[3] ~= b[3] then return a[3] > b[3] end
  return a[2] < b[2]
end)
local answer = {}
for i = 1, math.min(#found, tonumber(ARGV[1])) do
  redis.call('ZREM', found[i][1], found[i][2])
  redis.call('ZADD', KEYS[1], ARGV[2], found[i][2])
  redis.call('HSET', KEYS[2], found[i][2], found[i][3])
  answer[#answer + 1] = found[i][2]
  answer[#answer + 1] = tostring(found[i][3])
end
return answer
"""


@dataclass(frozen=True, slots=True)
class TailSettings:
    """``capacity``: entities of one tenant. ``lease_s``: entities that were taken and not done
    within this time are queued again."""

    capacity: int = 20_000
    buffer_entities: int = 2_000
    flush_interval_s: float = 0.2
    flush_timeout_s: float = 1.0
    lease_s: float = 6 * 3600.0


@dataclass(frozen=True, slots=True)
class TailEntity:
    """``count``: how often it was asked for, at most (see Space-Saving)."""

    entity: str
    count: int


class TailQueue:
    """In gateways: ``note``. In the generator: ``take`` and ``done``.

    ``dropped`` counts the requests that were forgotten because the buffer was full or Redis away;
    ``on_drop`` is told of each lot.
    """

    def __init__(
        self,
        redis: Redis,
        settings: TailSettings | None = None,
        now: Callable[[], float] = time.time,
        on_drop: Callable[[int], None] = lambda count: None,
    ) -> None:
        self._redis = redis
        self._settings = settings or TailSettings()
        self._now = now
        self._on_drop = on_drop
        self._buffer: dict[tuple[str, str], int] = {}
        self._flusher: asyncio.Task[None] | None = None
        self.dropped = 0

    async def note(self, tenant_id: str, entity_id: str) -> None:
        """Remember that a request of the tenant found no generated features.

        Never waits: the entity goes into a small buffer that a task empties. Ids that cannot be
        entities are ignored.
        """
        try:
            key = (tenant_id, entity_key(tenant_id, entity_id))
        except ValueError:
            return
        if key not in self._buffer and len(self._buffer) >= self._settings.buffer_entities:
            self._drop(1)
            return
        self._buffer[key] = self._buffer.get(key, 0) + 1
        if self._flusher is None:
            self._flusher = asyncio.create_task(self._flush_soon())

    async def flush(self) -> None:
        """Write the buffer out now. What Redis does not take in time is dropped and counted."""
        noted, self._buffer = self._buffer, {}
        if not noted:
            return
        try:
            async with asyncio.timeout(self._settings.flush_timeout_s):
                await self._write(noted)
        except (RedisError, OSError, TimeoutError):
            self._drop(sum(noted.values()))
        except asyncio.CancelledError:
            self._drop(sum(noted.values()))
            raise

    async def aclose(self) -> None:
        """Write out what is left, and stop."""
        if self._flusher is not None:
            self._flusher.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._flusher
        await self.flush()

    async def take(self, count: int) -> list[TailEntity]:
        """The most frequent entities, most frequent first; they leave the queue and are not queued
        again until they are done or their lease has ended."""
        await self._return_expired()
        tenants = await _await(self._redis.smembers(TENANTS))
        if not tenants or count < 1:
            return []
        keys = [TAKEN, TAKEN_COUNTS, *(_queue(_text(tenant)) for tenant in sorted(tenants))]
        answer = await _await(
            self._redis.eval(_TAKE, len(keys), *keys, str(count), str(self._now()))
        )
        pairs = zip(answer[::2], answer[1::2], strict=True)
        return [TailEntity(_text(entity), int(float(score))) for entity, score in pairs]

    async def done(self, entities: Sequence[str]) -> None:
        """They need not be generated any more."""
        if entities:
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.zrem(TAKEN, *entities)
                pipe.hdel(TAKEN_COUNTS, *entities)
                await pipe.execute()

    async def give_back(self, entities: Sequence[str]) -> None:
        """They were taken, but not worked on: queue them again with their counts."""
        if not entities:
            return
        counts = await _await(self._redis.hmget(TAKEN_COUNTS, list(entities)))
        await self.done(entities)
        noted = {
            (split_entity_key(entity)[0], entity): int(float(_text(count or "1")))
            for entity, count in zip(entities, counts, strict=True)
        }
        await self._write(noted)

    async def forget(self, tenant_id: str, entity_id: str) -> None:
        """It shall not be generated, whether it waits or is being worked on."""
        key = entity_key(tenant_id, entity_id)
        async with self._redis.pipeline(transaction=True) as pipe:
            pipe.zrem(_queue(tenant_id), key)
            pipe.zrem(TAKEN, key)
            pipe.hdel(TAKEN_COUNTS, key)
            await pipe.execute()

    async def waiting(self) -> dict[str, int]:
        """Entities in the queue, by tenant."""
        tenants = sorted(_text(each) for each in await _await(self._redis.smembers(TENANTS)))
        return {each: int(await _await(self._redis.zcard(_queue(each)))) for each in tenants}

    async def _flush_soon(self) -> None:
        while self._buffer:
            await asyncio.sleep(self._settings.flush_interval_s)
            await self.flush()
        # No await since the buffer was seen empty: what is noted next starts a new task.
        self._flusher = None

    async def _write(self, noted: dict[tuple[str, str], int]) -> None:
        by_tenant: dict[str, list[str]] = {}
        for (tenant, entity), count in noted.items():
            by_tenant.setdefault(tenant, []).extend((entity, str(count)))
        async with self._redis.pipeline(transaction=False) as pipe:
            for tenant, pairs in by_tenant.items():
                arguments = (tenant, str(self._settings.capacity), *pairs)
                pipe.eval(_NOTE, 3, _queue(tenant), TENANTS, TAKEN, *arguments)
            await pipe.execute()

    async def _return_expired(self) -> None:
        before = self._now() - self._settings.lease_s
        expired = await _await(self._redis.zrangebyscore(TAKEN, "-inf", before))
        await self.give_back([_text(entity) for entity in expired])

    def _drop(self, count: int) -> None:
        self.dropped += count
        self._on_drop(count)


def _queue(tenant: str) -> str:
    return f"weir:tail:queue:{tenant}"


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


async def _await(value: Any) -> Any:
    # redis-py's types say "awaitable or not" for both of its clients.
    return await cast("Awaitable[Any]", value)
