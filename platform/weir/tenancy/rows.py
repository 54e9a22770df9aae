"""Reading and writing the directory's rows, and what must hold of them."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError
from sqlalchemy import Connection, insert, select, update

from weir.database.schema import Row
from weir.errors import BadRequestError, ConflictError, NotFoundError, VersionMismatchError
from weir.settings.tenants import TenantFields, TenantSettings
from weir.tenancy.fields import KeyFields, key_of_fields, read_fields, tenant_of_fields
from weir.tenancy.records import StoredKey, StoredTenant
from weir.tenancy.tables import directory, directory_documents, keys, tenants
from weir.tenancy.tenant import Key

#: The document that holds the tenants of the settings.
YAML = "yaml"
#: The one that holds the rollouts of candidate versions (:mod:`weir.rollouts.store`).
ROLLOUTS = "rollouts"


def check_tenant_id(tenant_id: str) -> None:
    try:
        TenantSettings(id=tenant_id)
    except ValidationError:
        raise BadRequestError(
            "id: expected small letters, digits and hyphens, at most 63", param="id"
        ) from None


def require_free(connection: Connection, tenant_id: str) -> None:
    if any(each["id"] == tenant_id for each in document(connection, YAML) or ()):
        raise ConflictError(f"The tenant {tenant_id!r} is defined in the settings.", param="id")
    held = select(tenants.c.deleted_s).where(tenants.c.id == tenant_id)
    row = connection.execute(held).one_or_none()
    if row is not None:
        told = "exists already" if row.deleted_s is None else "was deleted, and its id stays taken"
        raise ConflictError(f"The tenant {tenant_id!r} {told}.", param="id")


def require_disjoint(connection: Connection, listed: tuple[TenantSettings, ...]) -> None:
    ids = {tenant.id for tenant in listed}
    digests = {digest: tenant.id for tenant in listed for digest in tenant.key_sha256}
    both = select(tenants.c.id).where(tenants.c.id.in_(ids), tenants.c.deleted_s.is_(None))
    if (taken := connection.execute(both.limit(1)).scalar()) is not None:
        raise ConflictError(
            f"tenants: {taken!r} is defined in the settings and in the database; remove one of them"
        )
    shared = select(keys.c.id, keys.c.tenant_id, keys.c.digest).where(keys.c.digest.in_(digests))
    if (row := connection.execute(shared.limit(1)).one_or_none()) is not None:
        raise ConflictError(
            f"tenants[{digests[row.digest]}].key_sha256: the key {row.id!r} of the tenant "
            f"{row.tenant_id!r} in the database is the same"
        )


def document(connection: Connection, name: str) -> Any:
    query = select(directory_documents.c.body).where(directory_documents.c.name == name)
    return connection.execute(query).scalar_one_or_none()


def put_document(connection: Connection, name: str, body: Any, revision: int) -> None:
    """Write a document, whether it was there or not."""
    values = {"body": body, "revision": revision}
    held = directory_documents.c.name == name
    if not connection.execute(update(directory_documents).where(held).values(values)).rowcount:
        connection.execute(insert(directory_documents).values(name=name, **values))


def next_revision(connection: Connection) -> int:
    """The number of the change that this transaction makes. Other changes wait for its end."""
    bump = update(directory).values(revision=directory.c.revision + 1)
    return int(connection.execute(bump.returning(directory.c.revision)).scalar_one())


def without_digests(listed: list[dict[str, Any]]) -> dict[str, Any]:
    """As the audit log tells it: of each key, enough to know it again."""
    return {
        each["id"]: {
            **{name: value for name, value in each.items() if name not in ("id", "key_sha256")},
            "keys": [digest[:12] for digest in each["key_sha256"]],
        }
        for each in listed
    }


def tenant_row(connection: Connection, tenant_id: str) -> Row:
    query = select(tenants).where(tenants.c.id == tenant_id, tenants.c.deleted_s.is_(None))
    row = connection.execute(query).mappings().one_or_none()
    if row is not None:
        return row
    if any(each["id"] == tenant_id for each in document(connection, YAML) or ()):
        raise NotFoundError(
            f"The tenant {tenant_id!r} is defined in the settings, and is changed there.",
            param="tenant",
        )
    raise NotFoundError(f"There is no tenant {tenant_id!r}.", param="tenant")


def key_row(connection: Connection, key_id: str, tenant_id: str | None) -> Row:
    row = connection.execute(select(keys).where(keys.c.id == key_id)).mappings().one_or_none()
    if row is None or tenant_id not in (None, row["tenant_id"]):
        raise NotFoundError(f"There is no key {key_id!r}.", param="key")
    return row


def require_version(row: Row, if_version: int | None) -> None:
    if if_version not in (None, row["version"]):
        raise VersionMismatchError(
            f"It has version {row['version']} now, not {if_version}: read it again."
        )


def require_unrevoked(row: Row) -> None:
    if row["revoked_s"] is not None:
        raise ConflictError(f"The key {row['id']!r} is revoked.")


def write(connection: Connection, table: Any, row: Row) -> None:
    connection.execute(update(table).where(table.c.id == row["id"]).values(dict(row)))


def stored_tenant(row: Row) -> StoredTenant:
    return StoredTenant(
        tenant_of_fields(row["id"], read_fields(TenantFields, row["fields"])),
        row["version"],
        row["created_s"],
        row["updated_s"],
        row["deleted_s"],
    )


def stored_key(row: Row) -> StoredKey:
    fields = read_fields(KeyFields, row["fields"])
    key: Key = key_of_fields(
        row["id"],
        row["tenant_id"],
        row["digest"],
        fields,
        created_s=row["created_s"],
        revoked_s=row["revoked_s"],
    )
    return StoredKey(key, row["version"], row["last_used_s"], row["replaces"])
