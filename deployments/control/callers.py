"""Tenants' keys, as they are at this moment: the control process looks at the database's revision
for each request, so that a key that was revoked a moment ago is refused."""

from __future__ import annotations

import threading
from collections.abc import Collection

from deployments.control.store import Store
from weir.tenancy import Caller, LiveDirectory, Tenant
from weir.tenancy.watch import DirectoryWatch


class Callers:
    """``watch`` keeps ``live`` in step; it is not begun, but asked."""

    def __init__(self, store: Store, live: LiveDirectory, watch: DirectoryWatch) -> None:
        self._store = store
        self._live = live
        self._watch = watch
        self._looking = threading.Lock()

    async def find(self, secret: str) -> Caller:
        """Whose key it is.

        Raises:
            AuthenticationError: nobody's, or one that is not valid now.
            PermissionDeniedError: the tenant is switched off.
        """
        await self._store.in_thread(self._look)
        return self._live.authenticate(f"Bearer {secret}")

    async def knows(self, tenant: str) -> bool:
        """Whether there is such a tenant, and it is not switched off."""
        await self._store.in_thread(self._look)
        found = self._live.directory.tenants.get(tenant)
        return found is not None and found.enabled

    async def tenants(self) -> Collection[Tenant]:
        """All of them; while the database is away, as they were known last."""
        await self._store.in_thread(self._look)
        return self._live.directory.tenants.values()

    def _look(self) -> None:
        with self._looking:
            self._watch.look()
