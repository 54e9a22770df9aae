"""What a data set is made from."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from itertools import accumulate

from weir.errors import ConfigError
from weir.samples import Store, make_store


@dataclass(frozen=True, slots=True)
class TenantShare:
    """A tenant, and its part of all customers."""

    tenant_id: str
    share: float


DEFAULT_TENANTS = (
    TenantShare("demo", 0.4),
    TenantShare("acme", 0.3),
    TenantShare("globex", 0.2),
    TenantShare("initech", 0.1),
)


@dataclass(frozen=True, slots=True)
class DeskDataSpec:
    """Equal specs give equal data.

    ``as_of`` is the day (midnight UTC) on which the data set was taken: the newest feature rows
    carry it as their event time. ``zipf_exponent`` s makes the customer of rank k weigh k**-s.
    ``heldout_share`` of the customers are made of names, brands, items and order ids that belong
    to the held-out split of :mod:`weir.samples`, so that no model can have learned them.
    """

    as_of: dt.date
    seed: int = 7
    customers: int = 50_000
    tenants: tuple[TenantShare, ...] = DEFAULT_TENANTS
    zipf_exponent: float = 1.0
    contacts_per_customer: float = 4.0
    heldout_share: float = 0.2

    def __post_init__(self) -> None:
        if self.customers < len(self.tenants) or not self.tenants:
            raise ConfigError("customers: at least one for each tenant, and at least one tenant")
        if len({tenant.tenant_id for tenant in self.tenants}) < len(self.tenants):
            raise ConfigError("tenants: one is named twice")
        if min(tenant.share for tenant in self.tenants) <= 0:
            raise ConfigError("tenants: every share must be above 0")
        if self.zipf_exponent < 0:
            raise ConfigError("zipf exponent: at least 0 (0: all customers equally popular)")

    @property
    def as_of_utc(self) -> dt.datetime:
        """Midnight UTC of ``as_of``."""
        return dt.datetime.combine(self.as_of, dt.time(), dt.UTC)

    def store(self, tenant_id: str) -> Store:
        """The tenant's store: whose policies its prompts begin with. Raises KeyError."""
        numbers = {tenant.tenant_id: number for number, tenant in enumerate(self.tenants)}
        return make_store(self.seed, numbers[tenant_id], "heldout")

    def sizes(self) -> tuple[int, ...]:
        """Customers of each tenant; they add up, and nobody has none."""
        total = sum(tenant.share for tenant in self.tenants)
        spare = self.customers - len(self.tenants)
        edges = [round(spare * part / total) for part in accumulate(t.share for t in self.tenants)]
        return tuple(1 + high - low for low, high in zip([0, *edges], edges, strict=False))
