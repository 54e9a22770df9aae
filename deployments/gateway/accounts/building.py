"""Builds a gateway's account as the settings say."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping

from deployments.gateway.accounts.account import Account
from deployments.gateway.accounts.redis_store import RedisStore
from deployments.gateway.feature_store import platform_redis_url
from features.online import ClusterAddress, ClusterLink, StoreLink, parse_address
from weir.metrics import GatewayMetrics
from weir.settings import Settings

_NAME = "accounts"


def accounts_url(settings: Settings, environment: Mapping[str, str]) -> str:
    """Where it is counted what tenants use.

    Raises:
        ConfigError: the platform's Redis is external and has no URL.
    """
    own = environment.get("WEIR_ACCOUNTS_REDIS_URL") or settings.accounts.url
    return own or platform_redis_url(settings, environment)


def redis_store(
    settings: Settings, environment: Mapping[str, str], metrics: GatewayMetrics
) -> RedisStore:
    """The store, not started. Each one is another gateway: what one that is gone had reserved is
    never mistaken for this one's.

    Raises:
        ConfigError: the URL cannot be used.
    """
    address = parse_address(accounts_url(settings, environment), setting="accounts.url")
    link: StoreLink | ClusterLink
    if isinstance(address, ClusterAddress):
        link = ClusterLink(address, name=_NAME)
    else:
        link = StoreLink(address, name=_NAME)
    store = RedisStore(link, settings.accounts, secrets.token_hex(8), now_ms, metrics)
    metrics.account_up.set_function(lambda: float(link.state == "up"))
    metrics.account_unsettled.set_function(lambda: float(store.unsettled))
    return store


def redis_account(store: RedisStore) -> Account:
    """The account of a gateway whose store this is."""
    return Account(store, now_ms)


def now_ms() -> int:
    """Milliseconds since the epoch."""
    return int(time.time() * 1000)
