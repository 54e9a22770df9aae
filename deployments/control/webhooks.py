"""Tells tenants' webhooks of their budgets' steps, for as long as the control process runs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping

import aiohttp

from deployments.gateway.accounts.building import accounts_url
from deployments.webhooks import BudgetWebhooks, accounts_client
from weir.settings import Settings
from weir.tenancy import Tenant

SECRET_VARIABLE = "WEIR_WEBHOOK_SECRET"


class Webhooks:
    """See :class:`deployments.control.background.Background`. ``tenants``: all, as they are now."""

    def __init__(
        self,
        settings: Settings,
        environment: Mapping[str, str],
        tenants: Callable[[], Awaitable[Iterable[Tenant]]],
    ) -> None:
        """Raises:
        ConfigError: the accounts' Redis has no URL.
        """
        self._url = accounts_url(settings, environment)
        self._secret = environment.get(SECRET_VARIABLE, "").encode() or None
        self._tenants = tenants
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        redis = accounts_client(self._url)
        try:
            async with aiohttp.ClientSession() as session:
                await BudgetWebhooks(
                    redis, session, self._tenants, time.time, secret=self._secret
                ).run()
        finally:
            await redis.aclose()
