"""The steps of the request path that have a policy of their own: quota and enrichment.

What stands here of them are their shapes, and the ones that do nothing, and say so.
"""

from __future__ import annotations

from typing import Protocol

from deployments.gateway.answers import Counts
from deployments.gateway.requests import ChatBody, CompletionBody
from features.enrichment import Enrichment
from features.enrichment.source import Header
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


class Enriching(Protocol):
    """Features that are being looked up."""

    async def finish(self) -> Enrichment[Body]:
        """The body that is tokenized; raises where features are required and cannot be had."""
        ...


class Enricher(Protocol):
    """Step 4: add online features to the prompt. It begins early, to run beside other steps."""

    def begin(self, tenant: Tenant, body: Body, header: Header) -> Enriching:
        """Start to look up; never raises, and what is begun need not be finished."""
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

    def begin(self, tenant: Tenant, body: Body, header: Header) -> Enriching:
        """Look nothing up."""
        return _Unchanged(body)


class _Unchanged:
    def __init__(self, body: Body) -> None:
        self._body = body

    async def finish(self) -> Enrichment[Body]:
        """The same body."""
        return Enrichment(self._body)
