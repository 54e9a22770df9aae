"""The door to a tenant's quota and budget: what a choice may use is reserved before it runs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol

from deployments.gateway.outputs import Counts
from weir.tenancy import Tenant


class Charge(Protocol):
    """A reservation. Leaving its context replaces it by what was used."""

    def use(self, counts: Counts) -> None:
        """What has been used so far, all in all."""
        ...


class Account(Protocol):
    """Keeps tenants within what they may use."""

    def reserve(
        self, tenant: Tenant, model: str, most: Counts
    ) -> AbstractAsyncContextManager[Charge]:
        """Reserve at most so much of a model.

        Raises (on entering):
            RateLimitError: the tenant may not.
        """
        ...


class _NoCharge:
    def use(self, counts: Counts) -> None:
        """Nothing was reserved."""


class UnlimitedAccount:
    """Every tenant may use everything. Quotas and budgets are not built yet; they go here."""

    @asynccontextmanager
    async def reserve(self, tenant: Tenant, model: str, most: Counts) -> AsyncIterator[Charge]:
        """Reserve nothing."""
        yield _NoCharge()
