"""The directory's tables. What is said of a tenant or key is one JSON value, checked whenever it is
read or written (:mod:`weir.tenancy.fields`), so a new field needs no migration; what is searched
for has a column. Times are seconds since the epoch."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Double,
    ForeignKey,
    Integer,
    String,
    Table,
)

from weir.database.schema import metadata

#: One row: the number of the last change. Whoever changes the directory locks it first, so that
#: changes become visible in the order of their numbers.
directory = Table(
    "directory",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("revision", BigInteger, nullable=False),
)

#: Whole documents beside the rows: ``yaml`` holds the tenants of the settings.
directory_documents = Table(
    "directory_documents",
    metadata,
    Column("name", String(63), primary_key=True),
    Column("body", JSON, nullable=False),
    Column("revision", BigInteger, nullable=False),
)

#: A deleted tenant stays as a row, because the ledger names it: its id is not used again.
tenants = Table(
    "tenants",
    metadata,
    Column("id", String(63), primary_key=True),
    Column("fields", JSON, nullable=False),
    Column("version", Integer, nullable=False),
    Column("revision", BigInteger, nullable=False, index=True),
    Column("created_s", Double, nullable=False),
    Column("updated_s", Double, nullable=False),
    Column("deleted_s", Double),
)

keys = Table(
    "tenant_keys",
    metadata,
    Column("id", String(63), primary_key=True),
    Column("tenant_id", String(63), ForeignKey("tenants.id"), nullable=False, index=True),
    Column("digest", String(64), nullable=False, unique=True),
    Column("fields", JSON, nullable=False),
    Column("version", Integer, nullable=False),
    Column("revision", BigInteger, nullable=False, index=True),
    Column("created_s", Double, nullable=False),
    Column("expires_s", Double),
    Column("revoked_s", Double),
    Column("last_used_s", Double),
    Column("replaces", String(63)),
)

#: Triggers refuse to change or remove a row.
audit_log = Table(
    "audit_log",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("at_s", Double, nullable=False),
    Column("actor", String(255), nullable=False),
    Column("action", String(63), nullable=False),
    Column("object", String(255), nullable=False, index=True),
    Column("tenant_id", String(63), index=True),
    Column("before", JSON(none_as_null=True)),
    Column("after", JSON(none_as_null=True)),
    Column("revision", BigInteger),
)
