"""Tenants, their keys, the revision that gateways watch, and the audit log."""

import sqlalchemy as sa
from alembic import op

revision = "0001_tenancy"
down_revision = None
branch_labels = None
depends_on = None

_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_SQLITE = """
CREATE TRIGGER audit_log_{event} BEFORE {event} ON audit_log
BEGIN SELECT RAISE(ABORT, 'audit_log is append-only'); END
"""
_FUNCTION = """
CREATE FUNCTION audit_log_is_append_only() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'audit_log is append-only'; END $$
"""
_POSTGRESQL = """
CREATE TRIGGER audit_log_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_log
FOR EACH STATEMENT EXECUTE FUNCTION audit_log_is_append_only()
"""


def upgrade() -> None:
    _directory()
    _tenants()
    _keys()
    _audit_log()
    if op.get_bind().dialect.name == "sqlite":
        for event in ("UPDATE", "DELETE"):
            op.execute(_SQLITE.format(event=event))
    else:
        op.execute(_FUNCTION)
        op.execute(_POSTGRESQL)


def downgrade() -> None:
    for table in ("audit_log", "tenant_keys", "tenants", "directory_documents", "directory"):
        op.drop_table(table)
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION audit_log_is_append_only()")


def _directory() -> None:
    directory = op.create_table(
        "directory",
        sa.Column("id", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
    )
    op.bulk_insert(directory, [{"id": 1, "revision": 0}])
    op.create_table(
        "directory_documents",
        sa.Column("name", sa.String(63), primary_key=True),
        sa.Column("body", sa.JSON(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
    )


def _tenants() -> None:
    op.create_table(
        "tenants",
        sa.Column("id", sa.String(63), primary_key=True),
        sa.Column("fields", sa.JSON(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False, index=True),
        sa.Column("created_s", sa.Double(), nullable=False),
        sa.Column("updated_s", sa.Double(), nullable=False),
        sa.Column("deleted_s", sa.Double()),
    )


def _keys() -> None:
    op.create_table(
        "tenant_keys",
        sa.Column("id", sa.String(63), primary_key=True),
        sa.Column(
            "tenant_id", sa.String(63), sa.ForeignKey("tenants.id"), nullable=False, index=True
        ),
        sa.Column("digest", sa.String(64), nullable=False, unique=True),
        sa.Column("fields", sa.JSON(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False, index=True),
        sa.Column("created_s", sa.Double(), nullable=False),
        sa.Column("expires_s", sa.Double()),
        sa.Column("revoked_s", sa.Double()),
        sa.Column("last_used_s", sa.Double()),
        sa.Column("replaces", sa.String(63)),
    )


def _audit_log() -> None:
    op.create_table(
        "audit_log",
        sa.Column("id", _NUMBER, primary_key=True, autoincrement=True),
        sa.Column("at_s", sa.Double(), nullable=False),
        sa.Column("actor", sa.String(255), nullable=False),
        sa.Column("action", sa.String(63), nullable=False),
        sa.Column("object", sa.String(255), nullable=False, index=True),
        sa.Column("tenant_id", sa.String(63), index=True),
        sa.Column("before", sa.JSON()),
        sa.Column("after", sa.JSON()),
        sa.Column("revision", sa.BigInteger()),
    )
