"""Tenants and keys as they are written (in YAML, in the database, over the API), checked, and as
the platform uses them, frozen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from types import MappingProxyType
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from weir.errors import BadRequestError
from weir.settings.tenants import BudgetSettings, QuotaSettings, TenantFields
from weir.tenancy.limits import NO_QUOTAS, Budget, BudgetStep, Quotas
from weir.tenancy.tenant import Key, Role, Tenant

#: A model, one of its adapters (``MODEL:NAME``), or an adapter's alias.
ServedName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/:-]{0,191}$")]


_Fields = TypeVar("_Fields", bound=BaseModel)


class KeyFields(BaseModel):
    """What can be said of a key, beside whose it is. ``models`` and ``endpoints`` narrow what its
    tenant may do (empty: all of it); endpoints are named as in logs and metrics (``chat``,
    ``embeddings``). ``expires_s``: seconds since the epoch; null is never."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field("", max_length=255)
    role: Role = Role.TENANT_USER
    models: tuple[ServedName, ...] = ()
    endpoints: tuple[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,62}$")], ...] = ()
    quotas: QuotaSettings = QuotaSettings()
    expires_s: float | None = Field(None, gt=0, allow_inf_nan=False)


def tenant_of_fields(id: str, fields: TenantFields) -> Tenant:
    """The frozen tenant."""
    quotas = {name: quotas_of(each) for name, each in fields.model_quotas.items()}
    return Tenant(
        id=id,
        models=frozenset(fields.models),
        classes=fields.classes,
        prefix_group=fields.prefix_group,
        weight=fields.weight,
        quotas=quotas_of(fields.quotas),
        model_quotas=MappingProxyType(quotas),
        budget=_budget(fields.budget),
        fallback=fields.fallback,
        retention_days=fields.retention_days,
        trace_content=fields.trace_content,
        labels=MappingProxyType(dict(fields.labels)),
        enabled=fields.enabled,
        adapters=frozenset(fields.adapters),
        features=frozenset(fields.features),
    )


def fields_of_tenant(tenant: Tenant) -> TenantFields:
    """How the tenant is written; :func:`tenant_of_fields` of it gives an equal one."""
    budget = tenant.budget
    return TenantFields.model_validate(
        {
            "models": sorted(tenant.models),
            "classes": tenant.classes,
            "prefix_group": tenant.prefix_group,
            "weight": tenant.weight,
            "quotas": asdict(tenant.quotas),
            "model_quotas": {name: asdict(each) for name, each in tenant.model_quotas.items()},
            "budget": None if budget is None else asdict(budget),
            "fallback": tenant.fallback,
            "retention_days": tenant.retention_days,
            "trace_content": tenant.trace_content,
            "labels": dict(tenant.labels),
            "enabled": tenant.enabled,
            "adapters": sorted(tenant.adapters),
            "features": sorted(tenant.features),
        }
    )


def key_of_fields(
    id: str,
    tenant: str,
    digest: str,
    fields: KeyFields,
    *,
    created_s: float = 0.0,
    revoked_s: float | None = None,
) -> Key:
    """The frozen key."""
    return Key(
        id=id,
        tenant=tenant,
        digest=digest,
        name=fields.name,
        role=fields.role,
        models=frozenset(fields.models),
        endpoints=frozenset(fields.endpoints),
        quotas=quotas_of(fields.quotas),
        created_s=created_s,
        expires_s=fields.expires_s,
        revoked_s=revoked_s,
    )


def fields_of_key(key: Key) -> KeyFields:
    """How the key is written; no part of it is secret."""
    return KeyFields(
        name=key.name,
        role=key.role,
        models=tuple(sorted(key.models)),
        endpoints=tuple(sorted(key.endpoints)),
        quotas=QuotaSettings(**asdict(key.quotas)),
        expires_s=key.expires_s,
    )


def quotas_of(settings: QuotaSettings) -> Quotas:
    """The frozen bounds; the same object for all that have none."""
    made = Quotas(**settings.model_dump())
    return NO_QUOTAS if made == NO_QUOTAS else made


def _budget(settings: BudgetSettings | None) -> Budget | None:
    if settings is None:
        return None
    steps = tuple(BudgetStep(step.percent, step.actions) for step in settings.steps)
    return Budget(settings.usd_per_month, steps, settings.webhook_url)


def read_fields(kind: type[_Fields], written: Mapping[str, Any]) -> _Fields:
    """What was written, perhaps by a newer weir: names that this one does not know are left out."""
    known = {name: value for name, value in written.items() if name in kind.model_fields}
    return kind.model_validate(known)


def checked_fields(kind: type[_Fields], given: Mapping[str, Any]) -> _Fields:
    """What somebody gave, as fields.

    Raises:
        BadRequestError: names the field that cannot be so.
    """
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        path = ".".join(str(part) for part in first["loc"])
        raise BadRequestError(f"{path}: {first['msg']}", param=path or None) from None


def patched_fields(
    kind: type[_Fields], old: Mapping[str, Any], changes: Mapping[str, Any]
) -> _Fields:
    """``old`` as it was written, with ``changes`` merged into it (JSON merge patch, RFC 7396):
    objects are merged, null takes the default, everything else replaces.

    Raises:
        BadRequestError: names the field that cannot be so.
    """
    return checked_fields(kind, _patched(old, changes))


def _patched(old: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    made = dict(old)
    for name, value in changes.items():
        if value is None:
            made.pop(name, None)
        elif isinstance(value, Mapping):
            below = made.get(name)
            made[name] = _patched(below if isinstance(below, Mapping) else {}, value)
        else:
            made[name] = value
    return made
