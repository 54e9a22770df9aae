"""What the API takes and gives. Amounts are decimal text, times are seconds since the epoch."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, create_model
from pydantic.fields import FieldInfo

from weir.settings.tenants import BudgetSettings, QuotaSettings, TenantFields, TenantId
from weir.tenancy.fields import KeyFields, fields_of_key, fields_of_tenant
from weir.tenancy.records import AuditEntry, NewKey, StoredKey, StoredTenant

MAX_OVERLAP_S = 90 * 24 * 3600.0
Source = Literal["database", "settings"]
_EXAMPLE_QUOTAS = {"requests_per_minute": 600, "output_tokens_per_day": 2_000_000}
_EXAMPLE_BUDGET = {
    "usd_per_month": "250.00",
    "steps": [
        {"percent": 80, "actions": ["warn", "webhook"]},
        {"percent": 100, "actions": ["refuse", "webhook"]},
    ],
    "webhook_url": "https://hooks.acme.example/weir",
}
_EXAMPLE_FIELDS: dict[str, Any] = {
    "models": ["weir-teacher"],
    "weight": 2.0,
    "quotas": _EXAMPLE_QUOTAS,
    "budget": _EXAMPLE_BUDGET,
    "labels": {"team": "support"},
}
_EXAMPLE_KEY: dict[str, Any] = {
    "name": "production",
    "role": "tenant-user",
    "endpoints": ["chat", "embeddings"],
}


def _examples(*examples: dict[str, Any]) -> ConfigDict:
    return ConfigDict(json_schema_extra={"examples": list(examples)})


class Problem(BaseModel):
    """What is wrong. ``param`` names the field, header or path at fault."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    """Every error of the API, in OpenAI's shape."""

    model_config = _examples(
        {
            "error": {
                "message": "There is no tenant 'acme'.",
                "type": "invalid_request_error",
                "param": "tenant",
                "code": "not_found",
            }
        }
    )
    error: Problem


class NewTenantBody(TenantFields):
    """A tenant to be made."""

    model_config = _examples({"id": "acme", **_EXAMPLE_FIELDS})
    id: TenantId


def _changes_of(kind: type[BaseModel], name: str, example: dict[str, Any]) -> type[BaseModel]:
    """A model of the same fields, none of which has to be there."""
    fields: dict[str, Any] = {
        field: (_constrained(info) | None, None) for field, info in kind.model_fields.items()
    }
    about = "A JSON merge patch (RFC 7396): what is left out stays, null takes the default."
    config = ConfigDict(extra="forbid", json_schema_extra={"examples": [example]})
    return create_model(name, __config__=config, __doc__=about, **fields)


def _constrained(info: FieldInfo) -> Any:
    return Annotated[(info.annotation, *info.metadata)] if info.metadata else info.annotation


TenantChanges = _changes_of(TenantFields, "TenantChanges", {"weight": 1.0, "budget": None})
KeyChanges = _changes_of(KeyFields, "KeyChanges", {"name": "staging", "expires_s": 1893456000.0})


class TenantBody(TenantFields):
    """A tenant. Those of the settings have no version and are changed there."""

    model_config = _examples(
        {
            "object": "tenant",
            "id": "acme",
            "source": "database",
            "version": 1,
            "created_s": 1796083200.0,
            "updated_s": 1796083200.0,
            **TenantFields.model_validate(_EXAMPLE_FIELDS).model_dump(mode="json"),
        }
    )
    object: Literal["tenant"] = "tenant"
    id: TenantId
    source: Source
    version: int
    created_s: float | None
    updated_s: float | None

    @classmethod
    def of(cls, stored: StoredTenant) -> TenantBody:
        """A tenant of the database."""
        return cls(
            id=stored.tenant.id,
            source="database",
            version=stored.version,
            created_s=stored.created_s,
            updated_s=stored.updated_s,
            **fields_of_tenant(stored.tenant).model_dump(),
        )

    @classmethod
    def of_settings(cls, tenant_id: str, fields: TenantFields) -> TenantBody:
        """A tenant of the settings."""
        return cls(
            id=tenant_id,
            source="settings",
            version=0,
            created_s=None,
            updated_s=None,
            **{name: getattr(fields, name) for name in TenantFields.model_fields},
        )


class NewKeyBody(KeyFields):
    """A key to be made."""

    model_config = _examples(_EXAMPLE_KEY)


class KeyBody(KeyFields):
    """A key, without its secret. ``last_used_s`` is some seconds old; ``replaces``: the key that it
    was made of when that was rotated."""

    object: Literal["key"] = "key"
    id: str
    tenant: str
    version: int
    created_s: float
    revoked_s: float | None
    last_used_s: float | None
    replaces: str | None

    @classmethod
    def of(cls, stored: StoredKey) -> KeyBody:
        """A key of the database."""
        return cls(**_key_fields(stored))


class NewKeyMadeBody(KeyBody):
    """A key that was just made. ``secret`` is the whole key; it cannot be had again."""

    secret: str

    @classmethod
    def of_new(cls, made: NewKey) -> NewKeyMadeBody:
        """A key with its secret."""
        return cls(**_key_fields(made.stored), secret=made.secret)


def _key_fields(stored: StoredKey) -> dict[str, Any]:
    key = stored.key
    return {
        **fields_of_key(key).model_dump(),
        "id": key.id,
        "tenant": key.tenant,
        "version": stored.version,
        "created_s": key.created_s,
        "revoked_s": key.revoked_s,
        "last_used_s": stored.last_used_s,
        "replaces": stored.replaces,
    }


class RotationBody(BaseModel):
    """``overlap_s``: so long the old key goes on working."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"overlap_s": 86400}]}
    )
    overlap_s: float = Field(3600.0, ge=0, le=MAX_OVERLAP_S, allow_inf_nan=False)


class NewQuotasBody(QuotaSettings):
    """Bounds per minute, per day (UTC) and at a time. What is left out, or null, is not bounded."""

    model_config = _examples(_EXAMPLE_QUOTAS)


class NewBudgetBody(BudgetSettings):
    """A budget for each calendar month (UTC)."""

    model_config = _examples(_EXAMPLE_BUDGET)


class QuotasBody(BaseModel):
    """Bounds of a tenant as a whole, and more of them by model. Null: none."""

    model_config = _examples({"tenant": _EXAMPLE_QUOTAS, "models": {}})
    tenant: QuotaSettings
    models: dict[str, QuotaSettings]


class BudgetBody(BaseModel):
    """A tenant's budget; null: none."""

    model_config = _examples({"budget": _EXAMPLE_BUDGET})
    budget: BudgetSettings | None


class SpendingBody(BaseModel):
    """What is spent and reserved in a month (UTC), in USD as decimal text. A tenant without a
    budget is not counted: it has neither ``percent`` nor ``left_usd``; see its usage."""

    model_config = _examples(
        {
            "object": "spending",
            "month": "2026-11",
            "spent_usd": "201.337500000",
            "budget_usd": "250.00",
            "left_usd": "48.662500000",
            "percent": 80.535,
        }
    )
    object: Literal["spending"] = "spending"
    month: str
    spent_usd: str
    budget_usd: str | None
    left_usd: str | None
    percent: float | None

    @classmethod
    def of(cls, month: str, spent: Decimal, budget: BudgetSettings | None) -> SpendingBody:
        """Of a tenant with that budget."""
        if budget is None:
            return cls(
                month=month, spent_usd=f"{spent:f}", budget_usd=None, left_usd=None, percent=None
            )
        whole = budget.usd_per_month
        return cls(
            month=month,
            spent_usd=f"{spent:f}",
            budget_usd=f"{whole:f}",
            left_usd=f"{whole - spent:f}",
            percent=round(float(spent / whole * 100), 3) if whole else None,
        )


class AuditBody(BaseModel):
    """One change: who did what to what. ``before`` and ``after`` hold no secret."""

    object: Literal["audit_entry"] = "audit_entry"
    id: int
    at_s: float
    actor: str
    action: str
    target: str
    tenant: str | None
    before: dict[str, Any] | None
    after: dict[str, Any] | None

    @classmethod
    def of(cls, entry: AuditEntry) -> AuditBody:
        """An entry of the log."""
        return cls(
            id=entry.id,
            at_s=entry.at_s,
            actor=entry.actor,
            action=entry.action,
            target=entry.object,
            tenant=entry.tenant_id,
            before=None if entry.before is None else dict(entry.before),
            after=None if entry.after is None else dict(entry.after),
        )
