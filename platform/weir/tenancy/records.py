"""What the directory's store gives back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from weir.tenancy.tenant import Key, Tenant

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """A part of a list. ``next``: what to give as ``after`` for the next part; None at the end."""

    items: tuple[T, ...]
    next: str | None = None


@dataclass(frozen=True, slots=True)
class StoredTenant:
    """A tenant of the database. ``version`` grows with each change of it, as an ETag does."""

    tenant: Tenant
    version: int
    created_s: float
    updated_s: float
    deleted_s: float | None = None


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A key of the database. ``last_used_s`` is noted every few seconds; ``replaces``: the key that
    this one was made of when that was rotated."""

    key: Key
    version: int
    last_used_s: float | None = None
    replaces: str | None = None


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key that was just made. ``secret`` is the whole key; it cannot be had again."""

    stored: StoredKey
    secret: str


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One change: who did what to what. ``object``: ``tenant:ID``, ``key:ID``, ``settings``, ...;
    ``before`` and ``after`` hold no secret."""

    id: int
    at_s: float
    actor: str
    action: str
    object: str
    tenant_id: str | None
    before: Mapping[str, Any] | None
    after: Mapping[str, Any] | None
    revision: int | None


@dataclass(frozen=True, slots=True)
class Changes:
    """What has changed in the directory since a revision, and the revision that it is at now.
    ``documents``: by name, those that changed. Tenants that were deleted are among ``tenants``."""

    revision: int
    tenants: tuple[StoredTenant, ...] = ()
    keys: tuple[Key, ...] = ()
    documents: Mapping[str, Any] | None = None
