"""What is kept about one entity of a tenant in the features' online store: read, and deleted."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hiredis import ReplyError
from redis.asyncio import Redis
from redis.exceptions import RedisError

from deployments.gateway.feature_store import build_link, tail_url
from features.enrichment import RuleBook, compile_rules
from features.join_keys import BadEntityError, EntityKeys
from features.online import (
    CacheSettings,
    ClusterLink,
    FeatureReader,
    FeatureRow,
    ServicePlan,
    StoreLink,
)
from features.online.connection import encode
from features.tail import TailQueue
from weir.errors import BadRequestError, NotFoundError, OverloadedError, PermissionDeniedError
from weir.settings import Settings

_PATIENCE_S = 2.0
_NO_CACHE = CacheSettings(entries=0, ttl_s=0.0, negative_ttl_s=0.0)


@dataclass(frozen=True, slots=True)
class Service:
    """A feature service, as the settings' rules use it. ``tenants``: who may; empty: all."""

    name: str
    plan: ServicePlan
    keys: EntityKeys
    holds_tenant: bool
    tenants: frozenset[str]

    def is_for(self, tenant: str) -> bool:
        """Whether a rule reads it for the tenant."""
        return not self.tenants or tenant in self.tenants


class EntityFeatures:
    """The online store. Connected when it is first asked, so that nothing is where nobody does."""

    def __init__(self, settings: Settings, environment: Mapping[str, str]) -> None:
        """Raises:
        ConfigError: the settings of the features or their store cannot be used.
        """
        self._settings = settings
        self._environment = environment
        self._services = _services(settings, compile_rules(settings.features, environment))
        self._link: StoreLink | ClusterLink | None = None
        self._reader: FeatureReader | None = None

    async def close(self) -> None:
        """Disconnect."""
        if self._link is not None:
            await self._link.close()

    def services(self, tenant: str) -> list[Service]:
        """Those whose entities the tenant's requests may name."""
        return [each for each in self._services if each.is_for(tenant)]

    async def read(self, tenant: str, name: str, entity: str) -> FeatureRow:
        """What the store has about an entity.

        Raises:
            NotFoundError: the tenant has no such service.
            BadRequestError: ``entity`` is none of it.
            OverloadedError: the store does not answer.
        """
        service, key = self._find(tenant, name, entity)
        await self._connected()
        assert self._reader is not None
        row = await self._reader.begin(service.plan, key, _PATIENCE_S).row()
        if row.outcome in ("down", "timeout"):
            raise _away()
        return row

    async def delete(self, tenant: str, name: str, entity: str) -> bool:
        """Forget the entity: its row in the store, and its place in the queue of entities that are
        to be written about. Whether there was a row.

        Raises:
            PermissionDeniedError: other tenants may have rows under the same key.
            Others: as :meth:`read`.
        """
        service, key = self._find(tenant, name, entity)
        if not service.holds_tenant:
            raise PermissionDeniedError(
                f"The rows of {name!r} are not of one tenant; the operator deletes them.",
                param="service",
            )
        link = await self._connected()
        removed = await _removed(link, key)
        if service.keys.are_own:
            await self._unqueue(tenant, entity)
        return removed

    def _find(self, tenant: str, name: str, entity: str) -> tuple[Service, bytes]:
        service = next((each for each in self.services(tenant) if each.name == name), None)
        if service is None:
            raise NotFoundError(f"There is no feature service {name!r}.", param="service")
        try:
            return service, service.keys.hash_key(tenant, service.keys.parse(entity))
        except BadEntityError as error:
            raise BadRequestError(f"entity: {error}.", param="entity") from None

    async def _connected(self) -> StoreLink | ClusterLink:
        if self._link is None:
            self._link = build_link(self._settings, self._environment)
            self._reader = FeatureReader(self._link, _NO_CACHE)
            self._link.start()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE_S):
                await self._link.wait_until_up()
                return self._link
        raise _away()

    async def _unqueue(self, tenant: str, entity: str) -> None:
        redis = Redis.from_url(tail_url(self._settings, self._environment))
        try:
            async with asyncio.timeout(_PATIENCE_S):
                await TailQueue(redis).forget(tenant, entity)
        except (RedisError, OSError, TimeoutError):
            raise _away() from None
        finally:
            await redis.aclose()


async def _removed(store: StoreLink | ClusterLink, key: bytes) -> bool:
    """Raises: OverloadedError: the store has not said that it did."""
    link: StoreLink | None = store.route(key)
    for _ in range(2):
        if link is None:
            break
        reply = await _ask(link, encode(b"DEL", key))
        if not isinstance(reply, ReplyError):
            return bool(reply)
        link = store.moved(str(reply))
    raise _away()


async def _ask(link: StoreLink, command: bytes) -> Any:
    answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def on_reply(reply: Any) -> None:
        if not answer.done():
            answer.set_result(reply)

    if not link.send(command, on_reply):
        raise _away()
    try:
        async with asyncio.timeout(_PATIENCE_S):
            reply = await answer
    except TimeoutError:
        raise _away() from None
    if reply is None:
        raise _away()
    return reply


def _services(settings: Settings, rules: RuleBook) -> list[Service]:
    """Each service once, with all tenants of the rules that read it."""
    found: dict[str, Service] = {}
    for rule in rules.rules:
        name = rule.plan.spec.name
        tenants = rule.tenants
        if name in found:
            before = found[name].tenants
            tenants = before | tenants if before and tenants else frozenset()
        holds = settings.features.services[name].holds_tenant
        found[name] = Service(name, rule.plan, rule.source.keys, holds, tenants)
    return list(found.values())


def _away() -> OverloadedError:
    return OverloadedError("The feature store does not answer now.", retry_after_s=1.0)
