"""A tenant, everything about it in one frozen object, and a key of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

from weir.errors import ModelNotFoundError, PermissionDeniedError
from weir.settings.fallback import TenantFallbackSettings
from weir.tenancy.limits import NO_QUOTAS, Budget, Quotas


@dataclass(frozen=True, slots=True)
class Tenant:
    """Who is asking, and what it may do.

    ``models`` and ``classes``: which it may use (empty: all; the first class is the default).
    ``adapters`` and ``features``: adapters, and services of features, that the settings keep for
    some tenants and that it may use too.
    ``prefix_group``: with whom it shares cached prefixes. ``weight``: its fair share relative to
    others (None: as the settings of admission say). ``model_quotas``: more bounds, by the model's
    name. ``retention_days``: so long prompts and answers may be kept (0: never, the default).
    ``trace_content``: traces may tell them. ``labels``: the operator's own, for reports.
    ``enabled``: a tenant that is not is refused.
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
    trace_content: bool = False
    labels: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    enabled: bool = True
    adapters: frozenset[str] = frozenset()
    features: frozenset[str] = frozenset()


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
        revoked_s, expires_s = self.revoked_s, self.expires_s
        return (revoked_s is None or now_s < revoked_s) and (expires_s is None or now_s < expires_s)


@dataclass(frozen=True, slots=True)
class Caller:
    """A tenant, and by which of its keys it asks."""

    tenant: Tenant
    key: Key

    def require_endpoint(self, name: str, *, asks: bool = True) -> None:
        """``asks``: whether it makes a model work, which a key that only reads may not.

        Raises:
            PermissionDeniedError: the key is not for that.
        """
        key = self.key
        if key.endpoints and name not in key.endpoints:
            raise PermissionDeniedError(f"The key is not for {name}.")
        if asks and key.role is Role.READ_ONLY:
            raise PermissionDeniedError("The key is for reading only.")

    def sees_model(self, name: str) -> bool:
        """Whether tenant and key may use the model itself."""
        models, narrowed = self.tenant.models, self.key.models
        return (not models or name in models) and (not narrowed or name in narrowed)

    def sees_adapter(self, model: str, names: Collection[str], tenants: Collection[str]) -> bool:
        """Whether tenant and key may use an adapter of ``model`` that is called ``names``, the
        first of which is its id, and that the settings keep for ``tenants`` (empty: for all who
        may use the model)."""
        tenant, narrowed = self.tenant, self.key.models
        if narrowed and model not in narrowed and narrowed.isdisjoint(names):
            return False
        if tenants:
            return tenant.id in tenants or not tenant.adapters.isdisjoint(names)
        return not tenant.models or model in tenant.models


def model_not_found(name: str) -> ModelNotFoundError:
    """The same answer for a model nobody serves and one the tenant may not see."""
    return ModelNotFoundError(f"The model {name!r} does not exist.", param="model")
