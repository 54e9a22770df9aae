"""The steps of the request path that have no policy yet. Each does nothing, and says so.

They stand where quotas and enrichment will: the request path calls them, awaits them
and undoes them exactly as it will then.
"""

from __future__ import annotations

from typing import Protocol

from deployments.gateway.answers import Counts
from deployments.gateway.requests import ChatBody, CompletionBody
from weir.tenancy import Tenant

Body = ChatBody | CompletionBody


class Charge(Protocol):
    """A reservation against a tenant's budget, settled once."""

    async def settle(self, counts: Counts) -> None:
        """Replace the estimate by what was used (zeros when nothing was)."""
        ...


class Quota(Protocol):
    """Step 3: may the tenant spend this?"""

    async def reserve(self, tenant: Tenant, body: Body) -> Charge:
        """Reserve, or raise RateLimitError."""
        ...


class Enricher(Protocol):
    """Step 4: add online features to the prompt."""

    async def enrich(self, tenant: Tenant, body: Body) -> Body:
        """The body that is tokenized."""
        ...


class _FreeCharge:
    async def settle(self, counts: Counts) -> None:
        """Nothing was reserved."""


class UnlimitedQuota:
    """Every tenant may spend everything."""

    async def reserve(self, tenant: Tenant, body: Body) -> Charge:
        """Reserve nothing."""
        return _FreeCharge()


class NoEnrichment:
    """Prompts stay as they came."""

    async def enrich(self, tenant: Tenant, body: Body) -> Body:
        """The same body."""
        return body
