"""What tenants have spent of their budgets this month, as gateways count it in Redis."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from decimal import Decimal

from deployments.control import asking
from deployments.gateway.feature_store import platform_redis_url
from features.online import parse_address
from weir.accounts import (
    DAY_MS,
    MONEY_FIELD,
    AccountKeys,
    Standing,
    month_name,
    month_of,
    spent_nano_usd,
    standing_of,
)
from weir.cost import usd_of
from weir.settings import Settings


class Balances:
    """``now_s``: seconds since the epoch."""

    def __init__(
        self,
        settings: Settings,
        environment: Mapping[str, str],
        now_s: Callable[[], float] = time.time,
    ) -> None:
        """Raises:
        ConfigError: the URL of the accounts' Redis cannot be used.
        """
        own = environment.get("WEIR_ACCOUNTS_REDIS_URL") or settings.accounts.url
        url = own or platform_redis_url(settings, environment)
        self._redis = asking.Redis(parse_address(url, setting="accounts.url"), "The accounts")
        self._now_s = now_s

    async def spent(self, tenant: str) -> tuple[str, Decimal]:
        """The month (as ``2026-11``, UTC), and what is spent and reserved in it, in USD.

        Raises:
            RedisAway: it cannot be found out now.
        """
        now_ms = int(self._now_s() * 1000)
        key = AccountKeys.of(tenant).used.encode()
        (written,) = await self._redis.ask(b"HMGET", key, MONEY_FIELD.encode())
        month = month_name(month_of(now_ms // DAY_MS))
        return month, usd_of(spent_nano_usd(written, now_ms))

    async def standing(self, tenant: str) -> Standing:
        """All that is used and reserved now, of the budget and of the quotas.

        Raises:
            RedisAway: it cannot be found out now.
        """
        words = await self._redis.ask(b"HGETALL", AccountKeys.of(tenant).used.encode())
        written = dict(zip(words[::2], words[1::2], strict=True))
        return standing_of(written, int(self._now_s() * 1000))

    async def close(self) -> None:
        """Disconnect."""
        await self._redis.close()
