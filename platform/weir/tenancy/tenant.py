"""A tenant, everything about it in one frozen object, and a key of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

from weir.errors import ModelNotFoundError
from weir.settings.fallback import TenantFallbackSettings
from weir.tenancy.limits import NO_QUOTAS, Budget, Quotas


@dataclass(frozen=True, slots=True)
class Tenant:
    """Who is asking, and what it may do.

    ``models`` and ``classes``: which it may use (empty: all; the first class is the default).
    ``prefix_group``: with whom it shares cached prefixes. ``weight``: its fair share relative to
    others (None: as the settings of admission say). ``model_quotas``: more bounds, by the model's
    name. ``retention_days``: so long prompts and answers may be kept (0: never, the default).
    ``labels``: the operator's own, for reports. ``enabled``: a tenant that is not is refused.
    """

    id: str
    models: frozenset[str] = frozenset()
    classes: tuple[str, ...] = ()
    prefix_group: str | None = None
    weight: float | None = None
    quotas: Quotas = NO_QUOTAS
    model_quotas: Mapping[str, Quotas] = field(default_factory=lambda: MappingProxyType({}))
    budget: Budget | None = None
    fallback: TenantFallbackSettings = field(default_factory=TenantFallbackSettings)
    retention_days: int = 0
    labels: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    enabled: bool = True

    def require_model(self, name: str) -> None:
        """A model that the tenant may not use is answered like one that does not exist."""
        if self.models and name not in self.models:
            raise model_not_found(name)


class Role(StrEnum):
    """What a key may do beside asking models. Each includes the ones below it, save that a
    tenant's roles never see another tenant."""

    ADMIN = "admin"
    TENANT_ADMIN = "tenant-admin"
    TENANT_USER = "tenant-user"
    READ_ONLY = "read-only"


@dataclass(frozen=True, slots=True)
class Key:
    """A tenant's API key, without its secret. ``models`` and ``endpoints`` narrow what the tenant
    may do (empty: all of it). Times are seconds since the epoch."""

    id: str
    tenant: str
    digest: str
    name: str = ""
    role: Role = Role.TENANT_USER
    models: frozenset[str] = frozenset()
    endpoints: frozenset[str] = frozenset()
    quotas: Quotas = NO_QUOTAS
    created_s: float = 0.0
    expires_s: float | None = None
    revoked_s: float | None = None

    def usable(self, now_s: float) -> bool:
        """Whether it is neither revoked nor expired."""
        ended = (self.revoked_s, self.expires_s)
        return all(end_s is None or now_s < end_s for end_s in ended)


@dataclass(frozen=True, slots=True)
class Caller:
    """A tenant, and by which of its keys it asks."""

    tenant: Tenant
    key: Key


def model_not_found(name: str) -> ModelNotFoundError:
    """The same answer for a model nobody serves and one the tenant may not see."""
    return ModelNotFoundError(f"The model {name!r} does not exist.", param="model")
