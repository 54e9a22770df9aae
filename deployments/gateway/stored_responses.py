"""Responses that are kept: for a while, within bounds, each for its own tenant only.

They are in Redis, so that every gateway knows them. What Redis does not take, because it is away,
the gateway keeps in its own memory within the same bounds.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, cast

import orjson
from redis.asyncio import Redis
from redis.exceptions import RedisError

from weir.errors import OverloadedError
from weir.settings.responses import ResponsesSettings

_LOG = logging.getLogger("weir.gateway")
_REDIS_TIMEOUT_S = 1.0
_AWAY = (RedisError, OSError, TimeoutError)
_Answer = TypeVar("_Answer")


@dataclass(frozen=True, slots=True)
class Stored:
    """``response`` as clients get it; ``items`` is the conversation before its output. ``open``: it
    is still being generated. ``quiet_s``: so long ago its gateway last said so."""

    response: dict[str, Any]
    items: list[dict[str, Any]]
    open: bool = False
    quiet_s: float = 0.0

    @property
    def id(self) -> str:
        """The response's id."""
        return str(self.response["id"])

    def packed(self) -> bytes:
        """As it is kept: whether it is open, then the rest as JSON."""
        rest = {"response": self.response, "items": self.items}
        return (b"o" if self.open else b"c") + orjson.dumps(rest)


def _unpacked(packed: bytes, quiet_s: float) -> Stored:
    rest = orjson.loads(packed[1:])
    return Stored(rest["response"], rest["items"], packed[:1] == b"o", quiet_s)


class ResponseStore(Protocol):
    """Keeps responses by tenant and id, for ``ttl_s`` seconds (None: as the settings say)."""

    async def put(self, tenant: str, stored: Stored, ttl_s: float | None = None) -> None:
        """Keep it. What is too large for its tenant is not kept."""
        ...

    async def get(self, tenant: str, response_id: str) -> Stored | None:
        """What is kept of the tenant under that id."""
        ...

    async def close(self, tenant: str, stored: Stored, ttl_s: float | None = None) -> bool:
        """Replace an open one. False: it is not there, or has been closed by somebody else."""
        ...

    async def touch(self, tenant: str, response_id: str) -> bool:
        """Say that it is being generated. False: it is not there, or has been closed."""
        ...

    async def delete(self, tenant: str, response_id: str) -> bool:
        """Forget it. False: it is not there."""
        ...

    async def forget(self, tenant: str) -> int:
        """Forget all of the tenant's. How many they were."""
        ...


@dataclass(slots=True)
class _Entry:
    packed: bytes
    expires_s: float
    touched_s: float


class MemoryResponses:
    """In this process. ``clock`` is in seconds."""

    def __init__(self, settings: ResponsesSettings, clock: Callable[[], float]) -> None:
        self._settings = settings
        self._clock = clock
        #: By tenant, then by id, each oldest first.
        self._tenants: dict[str, dict[str, _Entry]] = {}

    async def put(self, tenant: str, stored: Stored, ttl_s: float | None = None) -> None:
        self._expire()
        self._pop(tenant, stored.id)
        packed, now_s, most = stored.packed(), self._clock(), self._settings
        if len(packed) > most.max_bytes_per_tenant:
            return
        own = self._tenants.setdefault(tenant, {})
        own[stored.id] = _Entry(packed, now_s + (ttl_s or most.ttl_s), now_s)
        while len(own) > most.max_entries_per_tenant or _size(own) > most.max_bytes_per_tenant:
            self._pop(tenant, next(iter(own)))
        while self._entries > most.max_entries or self._bytes > most.max_bytes:
            largest = max(self._tenants, key=lambda name: _size(self._tenants[name]))
            self._pop(largest, next(iter(self._tenants[largest])))

    async def get(self, tenant: str, response_id: str) -> Stored | None:
        self._expire()
        entry = self._tenants.get(tenant, {}).get(response_id)
        if entry is None:
            return None
        return _unpacked(entry.packed, self._clock() - entry.touched_s)

    async def close(self, tenant: str, stored: Stored, ttl_s: float | None = None) -> bool:
        if not await self.touch(tenant, stored.id):
            return False
        await self.put(tenant, stored, ttl_s)
        return True

    async def touch(self, tenant: str, response_id: str) -> bool:
        self._expire()
        entry = self._tenants.get(tenant, {}).get(response_id)
        if entry is None or entry.packed[:1] != b"o":
            return False
        entry.touched_s = self._clock()
        return True

    async def delete(self, tenant: str, response_id: str) -> bool:
        self._expire()
        return self._pop(tenant, response_id)

    async def forget(self, tenant: str) -> int:
        self._expire()
        return len(self._tenants.pop(tenant, {}))

    @property
    def _entries(self) -> int:
        return sum(map(len, self._tenants.values()))

    @property
    def _bytes(self) -> int:
        return sum(map(_size, self._tenants.values()))

    def _pop(self, tenant: str, response_id: str) -> bool:
        own = self._tenants.get(tenant, {})
        entry = own.pop(response_id, None)
        if not own:
            self._tenants.pop(tenant, None)
        return entry is not None

    def _expire(self) -> None:
        now_s = self._clock()
        for tenant, own in list(self._tenants.items()):
            for response_id in [i for i, entry in own.items() if entry.expires_s <= now_s]:
                self._pop(tenant, response_id)


def _size(own: dict[str, _Entry]) -> int:
    return sum(len(entry.packed) for entry in own.values())


_PREFIX = "{weir:responses}"
_KEYS = tuple(f"{_PREFIX}:{name}" for name in ("blobs", "ages", "touched", "bytes", "of"))
# KEYS: packed entries by "tenant/id", their times of expiry, when they were last touched, bytes by
# tenant, and the prefix of each tenant's own order. Time is Redis' own, so that gateways agree.
_LIBRARY = """
local blobs, ages, touched, bytes, of = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local clock = redis.call('TIME')
local now = tonumber(clock[1]) + tonumber(clock[2]) / 1e6
local function drop(tenant, id)
  local name = tenant .. '/' .. id
  local size = redis.call('HSTRLEN', blobs, name)
  redis.call('HDEL', blobs, name)
  redis.call('HDEL', touched, name)
  redis.call('ZREM', of .. ':' .. tenant, id)
  if redis.call('ZREM', ages, name) == 0 then return 0 end
  if tonumber(redis.call('ZINCRBY', bytes, -size, tenant)) <= 0 then
    redis.call('ZREM', bytes, tenant)
  end
  return 1
end
local function oldest(tenant)
  return redis.call('ZRANGE', of .. ':' .. tenant, 0, 0)[1]
end
for _, name in ipairs(redis.call('ZRANGEBYSCORE', ages, '-inf', now)) do
  local tenant, id = string.match(name, '^([^/]*)/(.*)$')
  drop(tenant, id)
end
local tenant, id = ARGV[1], ARGV[2]
local name = tenant .. '/' .. id
local function open()
  return string.sub(redis.call('HGET', blobs, name) or '', 1, 1) == 'o'
end
"""
# Further ARGV: the packed entry, whether only an open one is replaced, seconds to live, and the
# bounds: entries and bytes of a tenant, entries and bytes of all.
_PUT = """
if ARGV[4] == '1' and not open() then return 0 end
drop(tenant, id)
if #ARGV[3] > tonumber(ARGV[7]) then return 1 end
redis.call('HSET', blobs, name, ARGV[3])
redis.call('HSET', touched, name, tostring(now))
redis.call('ZADD', ages, now + tonumber(ARGV[5]), name)
redis.call('ZADD', of .. ':' .. tenant, now, id)
redis.call('ZINCRBY', bytes, #ARGV[3], tenant)
while redis.call('ZCARD', of .. ':' .. tenant) > tonumber(ARGV[6])
    or tonumber(redis.call('ZSCORE', bytes, tenant)) > tonumber(ARGV[7]) do
  drop(tenant, oldest(tenant))
end
local function all()
  local sum = 0
  local listed = redis.call('ZRANGE', bytes, 0, -1, 'WITHSCORES')
  for i = 2, #listed, 2 do sum = sum + tonumber(listed[i]) end
  return sum
end
while redis.call('ZCARD', ages) > tonumber(ARGV[8]) or all() > tonumber(ARGV[9]) do
  local largest = redis.call('ZREVRANGE', bytes, 0, 0)[1]
  drop(largest, oldest(largest))
end
return 1
"""
_GET = """
local packed = redis.call('HGET', blobs, name)
if not packed then return false end
return {packed, tostring(now - tonumber(redis.call('HGET', touched, name) or now))}
"""
_TOUCH = """
if not open() then return 0 end
redis.call('HSET', touched, name, tostring(now))
return 1
"""
_DELETE = "return drop(tenant, id)"
_FORGET = """
local listed = redis.call('ZRANGE', of .. ':' .. tenant, 0, -1)
for _, each in ipairs(listed) do drop(tenant, each) end
return #listed
"""


class RedisResponses:
    """In Redis, for all gateways. Every method is one script and raises ``RedisError``, ``OSError``
    or ``TimeoutError`` where Redis does not answer."""

    def __init__(self, redis: Redis, settings: ResponsesSettings) -> None:
        self._redis = redis
        self._settings = settings

    async def put(self, tenant: str, stored: Stored, ttl_s: float | None = None) -> None:
        await self._write(tenant, stored, ttl_s, only_open=False)

    async def get(self, tenant: str, response_id: str) -> Stored | None:
        found = await self._run(_GET, tenant, response_id)
        return _unpacked(found[0], float(found[1])) if found else None

    async def close(self, tenant: str, stored: Stored, ttl_s: float | None = None) -> bool:
        return await self._write(tenant, stored, ttl_s, only_open=True)

    async def touch(self, tenant: str, response_id: str) -> bool:
        return bool(await self._run(_TOUCH, tenant, response_id))

    async def delete(self, tenant: str, response_id: str) -> bool:
        return bool(await self._run(_DELETE, tenant, response_id))

    async def forget(self, tenant: str) -> int:
        return int(await self._run(_FORGET, tenant, ""))

    async def aclose(self) -> None:
        """Close the connections."""
        await self._redis.aclose()

    async def _write(
        self, tenant: str, stored: Stored, ttl_s: float | None, *, only_open: bool
    ) -> bool:
        most = self._settings
        bounds = (
            ttl_s or most.ttl_s,
            most.max_entries_per_tenant,
            most.max_bytes_per_tenant,
            most.max_entries,
            most.max_bytes,
        )
        told = (stored.packed(), int(only_open), *bounds)
        return bool(await self._run(_PUT, tenant, stored.id, *told))

    async def _run(self, script: str, tenant: str, response_id: str, *more: Any) -> Any:
        arguments = (tenant, response_id, *more)
        async with asyncio.timeout(_REDIS_TIMEOUT_S):
            answer = self._redis.eval(_LIBRARY + script, len(_KEYS), *_KEYS, *arguments)
            return await cast("Awaitable[Any]", answer)


class SharedResponses:
    """In Redis; in memory what Redis did not take. Where only Redis can tell and it is away, every
    method but :meth:`put` raises :class:`OverloadedError`."""

    def __init__(self, shared: RedisResponses, own: MemoryResponses) -> None:
        self._shared = shared
        self._own = own

    async def put(self, tenant: str, stored: Stored, ttl_s: float | None = None) -> None:
        try:
            await self._shared.put(tenant, stored, ttl_s)
        except _AWAY as error:
            _LOG.warning("Redis takes no response", extra={"reason": str(error)})
            await self._own.put(tenant, stored, ttl_s)

    async def get(self, tenant: str, response_id: str) -> Stored | None:
        found = await self._own.get(tenant, response_id)
        return found or await _reached(self._shared.get(tenant, response_id))

    async def close(self, tenant: str, stored: Stored, ttl_s: float | None = None) -> bool:
        closed = await self._own.close(tenant, stored, ttl_s)
        return closed or await _reached(self._shared.close(tenant, stored, ttl_s))

    async def touch(self, tenant: str, response_id: str) -> bool:
        touched = await self._own.touch(tenant, response_id)
        return touched or await _reached(self._shared.touch(tenant, response_id))

    async def delete(self, tenant: str, response_id: str) -> bool:
        deleted = await self._own.delete(tenant, response_id)
        return deleted or await _reached(self._shared.delete(tenant, response_id))

    async def forget(self, tenant: str) -> int:
        own = await self._own.forget(tenant)
        return own + await _reached(self._shared.forget(tenant))

    async def aclose(self) -> None:
        """Close the connections."""
        await self._shared.aclose()


async def _reached(asking: Awaitable[_Answer]) -> _Answer:
    try:
        return await asking
    except _AWAY as error:
        _LOG.warning("Redis tells no response", extra={"reason": str(error)})
        raise OverloadedError("Kept responses cannot be reached now.") from None
