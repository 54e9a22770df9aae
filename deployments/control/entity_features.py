"""What is kept about one entity of a tenant in the features' online store: read, and deleted."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from redis.asyncio import Redis
from redis.exceptions import RedisError

from deployments.control import asking
from deployments.control.asking import PATIENCE_S
from deployments.gateway.feature_store import store_security, store_url, tail_url
from features.enrichment import RuleBook, compile_rules
from features.join_keys import BadEntityError, EntityKeys
from features.online import CacheSettings, FeatureReader, FeatureRow, ServicePlan, parse_address
from features.tail import TailQueue
from weir.errors import BadRequestError, NotFoundError, PermissionDeniedError
from weir.settings import Settings

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
        self._services = _services(settings, compile_rules(settings.features, environment))
        self._tail_url = tail_url(settings, environment) if self._services else ""
        self._store = _store(settings, environment) if self._services else None
        self._reader: FeatureReader | None = None

    async def close(self) -> None:
        """Disconnect."""
        if self._store is not None:
            await self._store.close()

    def services(self, tenant: str) -> list[Service]:
        """Those whose entities the tenant's requests may name."""
        return [each for each in self._services if each.is_for(tenant)]

    async def read(self, tenant: str, name: str, entity: str) -> FeatureRow:
        """What the store has about an entity.

        Raises:
            NotFoundError: the tenant has no such service.
            BadRequestError: ``entity`` is none of it.
            RedisAway: the store does not answer.
        """
        service, store, key = self._find(tenant, name, entity)
        if self._reader is None:
            self._reader = FeatureReader(await store.links(), _NO_CACHE)
        await store.links()
        row = await self._reader.begin(service.plan, key, PATIENCE_S).row()
        if row.outcome in ("down", "timeout"):
            raise store.away()
        return row

    async def delete(self, tenant: str, name: str, entity: str) -> bool:
        """Forget the entity: its row in the store, and its place in the queue of entities that are
        to be written about. Whether there was a row.

        Raises:
            PermissionDeniedError: other tenants may have rows under the same key.
            Others: as :meth:`read`.
        """
        service, store, key = self._find(tenant, name, entity)
        if not service.holds_tenant:
            raise PermissionDeniedError(
                f"The rows of {name!r} are not of one tenant; the operator deletes them.",
                param="service",
            )
        removed = bool(await store.ask(b"DEL", key))
        if service.keys.are_own:
            await self._unqueue(tenant, entity, store)
        return removed

    def _find(self, tenant: str, name: str, entity: str) -> tuple[Service, asking.Redis, bytes]:
        service = next((each for each in self.services(tenant) if each.name == name), None)
        if service is None or self._store is None:
            raise NotFoundError(f"There is no feature service {name!r}.", param="service")
        try:
            key = service.keys.hash_key(tenant, service.keys.parse(entity))
        except BadEntityError as error:
            raise BadRequestError(f"entity: {error}.", param="entity") from None
        return service, self._store, key

    async def _unqueue(self, tenant: str, entity: str, store: asking.Redis) -> None:
        redis = Redis.from_url(self._tail_url)
        try:
            async with asyncio.timeout(PATIENCE_S):
                await TailQueue(redis).forget(tenant, entity)
        except (RedisError, OSError, TimeoutError):
            raise store.away() from None
        finally:
            await redis.aclose()


def _store(settings: Settings, environment: Mapping[str, str]) -> asking.Redis:
    security = store_security(settings, environment)
    address = parse_address(store_url(settings, environment), security)
    return asking.Redis(address, "The feature store")


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
