"""Tenants and keys in the database. Each change is one transaction: it takes the next revision,
which gateways watch, and is in the audit log.

Nothing here runs on an event loop.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, Select, insert, select, update

from weir.database.engine import reading, writing
from weir.database.schema import Row
from weir.errors import ConflictError
from weir.settings.tenants import TenantFields, TenantSettings
from weir.tenancy.audit import append_audit
from weir.tenancy.fields import KeyFields, patched_fields, read_fields
from weir.tenancy.records import Changes, NewKey, Page, StoredKey, StoredTenant
from weir.tenancy.rows import (
    YAML,
    check_tenant_id,
    document,
    key_row,
    next_revision,
    put_document,
    require_disjoint,
    require_free,
    require_unrevoked,
    require_version,
    stored_key,
    stored_tenant,
    tenant_row,
    without_digests,
    write,
)
from weir.tenancy.secret_keys import hash_key, new_key, new_key_id
from weir.tenancy.tables import directory, directory_documents, keys, tenants


@dataclass(frozen=True, slots=True)
class _Change:
    """One transaction that changes the directory."""

    connection: Connection
    actor: str
    now_s: float
    revision: int

    def log(
        self, action: str, kind: str, name: str, tenant: str, before: Any = None, after: Any = None
    ) -> None:
        append_audit(
            self.connection,
            self.now_s,
            self.actor,
            action,
            f"{kind}:{name}",
            tenant_id=tenant,
            before=before,
            after=after,
            revision=self.revision,
        )


class TenantStore:
    """The directory's part in the database. ``clock`` gives seconds since the epoch; ``actor`` is
    who changes something, as the audit log shall say it."""

    def __init__(self, engine: Engine, clock: Callable[[], float] = time.time) -> None:
        self.engine = engine
        self._clock = clock
        self._joined: Connection | None = None

    def within(self, connection: Connection) -> TenantStore:
        """The same store, whose changes are part of the caller's transaction
        (:func:`weir.database.writing`)."""
        store = TenantStore(self.engine, self._clock)
        store._joined = connection
        return store

    def close(self) -> None:
        """Close the connections; the next call opens others."""
        self.engine.dispose()

    def create_tenant(self, actor: str, tenant_id: str, fields: TenantFields) -> StoredTenant:
        """Raises:
        BadRequestError: the id is none.
        ConflictError: the id is taken, by a tenant of the settings too, or was used before.
        """
        check_tenant_id(tenant_id)
        with self._changing(actor) as change:
            require_free(change.connection, tenant_id)
            row = {
                "id": tenant_id,
                "fields": fields.model_dump(mode="json"),
                "version": 1,
                "revision": change.revision,
                "created_s": change.now_s,
                "updated_s": change.now_s,
                "deleted_s": None,
            }
            change.connection.execute(insert(tenants).values(row))
            change.log("tenant.create", "tenant", tenant_id, tenant_id, None, row["fields"])
        return stored_tenant(row)

    def update_tenant(
        self,
        actor: str,
        tenant_id: str,
        changes: Mapping[str, Any],
        if_version: int | None = None,
    ) -> StoredTenant:
        """Merge ``changes`` into the tenant's fields as a JSON merge patch (RFC 7396): objects are
        merged, null takes the default, everything else replaces.

        Raises:
            BadRequestError: names the field that cannot be so.
            NotFoundError: there is no such tenant in the database.
            VersionMismatchError: it has another version than ``if_version``.
        """
        with self._changing(actor) as change:
            old = tenant_row(change.connection, tenant_id)
            require_version(old, if_version)
            fields = patched_fields(TenantFields, old["fields"], changes).model_dump(mode="json")
            row = {
                **old,
                "fields": fields,
                "version": old["version"] + 1,
                "revision": change.revision,
                "updated_s": change.now_s,
            }
            write(change.connection, tenants, row)
            change.log("tenant.update", "tenant", tenant_id, tenant_id, old["fields"], fields)
        return stored_tenant(row)

    def delete_tenant(self, actor: str, tenant_id: str, if_version: int | None = None) -> None:
        """The tenant is refused from now on, and its keys are revoked. Its row stays, for the
        ledger; its id cannot be used again.

        Raises:
            NotFoundError: there is no such tenant in the database.
            VersionMismatchError: it has another version than ``if_version``.
        """
        with self._changing(actor) as change:
            old = tenant_row(change.connection, tenant_id)
            require_version(old, if_version)
            row = {
                **old,
                "version": old["version"] + 1,
                "revision": change.revision,
                "updated_s": change.now_s,
                "deleted_s": change.now_s,
            }
            write(change.connection, tenants, row)
            change.log("tenant.delete", "tenant", tenant_id, tenant_id, old["fields"])
            held = select(keys).where(keys.c.tenant_id == tenant_id, keys.c.revoked_s.is_(None))
            for key in change.connection.execute(held).mappings().all():
                _revoke(change, key)

    def tenant(self, tenant_id: str) -> StoredTenant:
        """Raises:
        NotFoundError: there is no such tenant in the database.
        """
        with reading(self.engine) as connection:
            return stored_tenant(tenant_row(connection, tenant_id))

    def tenants(self, after: str | None = None, limit: int = 100) -> Page[StoredTenant]:
        """Those that are not deleted, by id."""
        query = select(tenants).where(tenants.c.deleted_s.is_(None)).order_by(tenants.c.id)
        if after is not None:
            query = query.where(tenants.c.id > after)
        return self._page(query, limit, stored_tenant, lambda item: item.tenant.id)

    def create_key(self, actor: str, tenant_id: str, fields: KeyFields) -> NewKey:
        """Raises:
        NotFoundError: there is no such tenant in the database.
        """
        with self._changing(actor) as change:
            tenant_row(change.connection, tenant_id)
            return _create_key(change, "key.create", tenant_id, fields)

    def update_key(
        self,
        actor: str,
        key_id: str,
        changes: Mapping[str, Any],
        if_version: int | None = None,
        *,
        tenant_id: str | None = None,
    ) -> StoredKey:
        """Merge ``changes`` as :meth:`update_tenant` does. ``tenant_id``: whose it must be.

        Raises:
            BadRequestError: names the field that cannot be so.
            NotFoundError: there is no such key.
            ConflictError: it is revoked.
            VersionMismatchError: it has another version than ``if_version``.
        """
        with self._changing(actor) as change:
            old = key_row(change.connection, key_id, tenant_id)
            require_version(old, if_version)
            require_unrevoked(old)
            fields = patched_fields(KeyFields, old["fields"], changes).model_dump(mode="json")
            row = _next(change, {**old, "fields": fields, "expires_s": fields["expires_s"]})
            write(change.connection, keys, row)
            change.log("key.update", "key", key_id, row["tenant_id"], old["fields"], fields)
        return stored_key(row)

    def rotate_key(
        self, actor: str, key_id: str, overlap_s: float, *, tenant_id: str | None = None
    ) -> NewKey:
        """Another key that may do the same; the old one expires ``overlap_s`` seconds from now,
        unless it does so before. A key that had an end gets as long a life as the old one had.

        Raises:
            NotFoundError: there is no such key.
            ConflictError: it is revoked or expired.
        """
        with self._changing(actor) as change:
            old = key_row(change.connection, key_id, tenant_id)
            require_unrevoked(old)
            if old["expires_s"] is not None and old["expires_s"] <= change.now_s:
                raise ConflictError(f"The key {key_id!r} has expired.")
            fields = read_fields(KeyFields, old["fields"])
            if old["expires_s"] is not None:
                life_s = old["expires_s"] - old["created_s"]
                fields = fields.model_copy(update={"expires_s": change.now_s + life_s})
            ends_s = min(old["expires_s"] or float("inf"), change.now_s + max(0.0, overlap_s))
            kept = {**old["fields"], "expires_s": ends_s}
            row = _next(change, {**old, "fields": kept, "expires_s": ends_s})
            write(change.connection, keys, row)
            change.log("key.expire", "key", key_id, old["tenant_id"], old["fields"], kept)
            return _create_key(change, "key.rotate", old["tenant_id"], fields, replaces=key_id)

    def revoke_key(self, actor: str, key_id: str, *, tenant_id: str | None = None) -> StoredKey:
        """Refused from now on, for good. Revoking it again changes nothing.

        Raises:
            NotFoundError: there is no such key.
        """
        with self._changing(actor) as change:
            old = key_row(change.connection, key_id, tenant_id)
            if old["revoked_s"] is not None:
                return stored_key(old)
            return stored_key(_revoke(change, old))

    def key(self, key_id: str, *, tenant_id: str | None = None) -> StoredKey:
        """Raises:
        NotFoundError: there is no such key (of that tenant).
        """
        with reading(self.engine) as connection:
            return stored_key(key_row(connection, key_id, tenant_id))

    def keys(
        self, tenant_id: str | None = None, after: str | None = None, limit: int = 100
    ) -> Page[StoredKey]:
        """Keys by id, of one tenant or of all; revoked and expired ones too."""
        query = select(keys).order_by(keys.c.id)
        if tenant_id is not None:
            query = query.where(keys.c.tenant_id == tenant_id)
        if after is not None:
            query = query.where(keys.c.id > after)
        return self._page(query, limit, stored_key, lambda item: item.key.id)

    def note_uses(self, uses: Mapping[str, float]) -> None:
        """When keys were used last, by their ids. No change of the directory: it takes no revision
        and is not in the audit log."""
        with writing(self.engine) as connection:
            for key_id, at_s in sorted(uses.items()):
                later = keys.c.last_used_s.is_(None) | (keys.c.last_used_s < at_s)
                connection.execute(
                    update(keys).where(keys.c.id == key_id, later).values(last_used_s=at_s)
                )

    def put_settings_tenants(self, actor: str, listed: tuple[TenantSettings, ...]) -> None:
        """The tenants of the settings, for gateways to see; the same ones again change nothing.

        Raises:
            ConflictError: one of them has the id, or a key, of a tenant in the database.
        """
        body = [tenant.model_dump(mode="json") for tenant in listed]
        with reading(self.engine) as connection:
            if document(connection, YAML) == body:
                return
        with self._changing(actor) as change:
            require_disjoint(change.connection, listed)
            before = document(change.connection, YAML)
            put_document(change.connection, YAML, body, change.revision)
            append_audit(
                change.connection,
                change.now_s,
                actor,
                "settings.apply",
                "settings",
                before=None if before is None else without_digests(before),
                after=without_digests(body),
                revision=change.revision,
            )

    def settings_tenants(self) -> tuple[TenantSettings, ...]:
        """The tenants of the settings with which the platform was started last."""
        with reading(self.engine) as connection:
            body = document(connection, YAML) or ()
        return tuple(read_fields(TenantSettings, each) for each in body)

    def revision(self) -> int:
        """The number of the last change."""
        with reading(self.engine) as connection:
            return int(connection.execute(select(directory.c.revision)).scalar_one())

    def changes_since(self, revision: int) -> Changes:
        """What was changed after ``revision``; -1: everything. Revoked keys are left out of
        everything, for nobody has seen them yet."""
        with reading(self.engine) as connection:
            # Read first: a change that commits meanwhile is read again at the next look.
            current = int(connection.execute(select(directory.c.revision)).scalar_one())
            changed_tenants = select(tenants).where(tenants.c.revision > revision)
            changed_keys = select(keys).where(keys.c.revision > revision)
            if revision < 0:
                changed_keys = changed_keys.where(keys.c.revoked_s.is_(None))
                changed_tenants = changed_tenants.where(tenants.c.deleted_s.is_(None))
            documents = select(directory_documents).where(directory_documents.c.revision > revision)
            return Changes(
                current,
                tuple(map(stored_tenant, connection.execute(changed_tenants).mappings())),
                tuple(stored_key(row).key for row in connection.execute(changed_keys).mappings()),
                {row["name"]: row["body"] for row in connection.execute(documents).mappings()},
            )

    @contextmanager
    def _changing(self, actor: str) -> Iterator[_Change]:
        own = writing(self.engine) if self._joined is None else nullcontext(self._joined)
        with own as connection:
            yield _Change(connection, actor, self._clock(), next_revision(connection))

    def _page(
        self,
        query: Select[Any],
        limit: int,
        made: Callable[[Row], Any],
        name: Callable[[Any], str],
    ) -> Page[Any]:
        with reading(self.engine) as connection:
            rows = connection.execute(query.limit(limit + 1)).mappings().all()
        items = tuple(made(row) for row in rows[:limit])
        return Page(items, name(items[-1]) if len(rows) > limit else None)


def _create_key(
    change: _Change, action: str, tenant_id: str, fields: KeyFields, replaces: str | None = None
) -> NewKey:
    key_id = new_key_id()
    secret = new_key(key_id)
    row: dict[str, Any] = {
        "id": key_id,
        "tenant_id": tenant_id,
        "digest": hash_key(secret),
        "fields": fields.model_dump(mode="json"),
        "version": 1,
        "revision": change.revision,
        "created_s": change.now_s,
        "expires_s": fields.expires_s,
        "revoked_s": None,
        "last_used_s": None,
        "replaces": replaces,
    }
    change.connection.execute(insert(keys).values(row))
    change.log(action, "key", key_id, tenant_id, None, {**row["fields"], "replaces": replaces})
    return NewKey(stored_key(row), secret)


def _revoke(change: _Change, old: Row) -> Row:
    row = _next(change, {**old, "revoked_s": change.now_s})
    write(change.connection, keys, row)
    change.log("key.revoke", "key", row["id"], row["tenant_id"], old["fields"])
    return row


def _next(change: _Change, row: Row) -> Row:
    return {**row, "version": row["version"] + 1, "revision": change.revision}
