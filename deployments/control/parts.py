"""What the endpoints work with."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from deployments.control.changes import Changes
from deployments.control.store import Store
from weir.settings import Settings
from weir.settings.tenants import TenantSettings
from weir.tenancy.database import TenantStore


@dataclass(frozen=True)
class Parts:
    """``now_s``: seconds since the epoch."""

    settings: Settings
    store: Store
    tenants: TenantStore
    changes: Changes
    now_s: Callable[[], float] = time.time
    of_settings: Mapping[str, TenantSettings] = field(init=False)
    """The tenants of the settings, by id."""

    def __post_init__(self) -> None:
        by_id = {tenant.id: tenant for tenant in self.settings.tenants}
        object.__setattr__(self, "of_settings", by_id)
