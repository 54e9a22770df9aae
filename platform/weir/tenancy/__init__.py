"""Tenants, their keys, and what they may use."""

from weir.tenancy.directory import Directory, LiveDirectory
from weir.tenancy.limits import NO_QUOTAS, Budget, BudgetStep, Quotas
from weir.tenancy.secret_keys import KEY_PREFIX, hash_key, new_key
from weir.tenancy.tenant import Caller, Key, Role, Tenant, model_not_found

__all__ = [
    "KEY_PREFIX",
    "NO_QUOTAS",
    "Budget",
    "BudgetStep",
    "Caller",
    "Directory",
    "Key",
    "LiveDirectory",
    "Quotas",
    "Role",
    "Tenant",
    "hash_key",
    "model_not_found",
    "new_key",
]
