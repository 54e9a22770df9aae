"""Files that tenants upload, and batch jobs over them."""

import sqlalchemy as sa
from alembic import op

revision = "0005_batches"
down_revision = "0004_slo"
branch_labels = None
depends_on = None

_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    _files()
    _batches()
    op.create_table(
        "batch_chunks",
        _of_batch(),
        sa.Column("chunk", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("first_line", sa.Integer(), nullable=False),
        sa.Column("last_line", sa.Integer(), nullable=False),
        sa.Column("requests", sa.Integer(), nullable=False),
        sa.Column("offset", sa.BigInteger(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("done", sa.Boolean(), nullable=False),
        sa.Column("lease_owner", sa.String(64), index=True),
        sa.Column("lease_until_s", sa.Double()),
    )
    op.create_table(
        "batch_lines",
        _of_batch(),
        sa.Column("line", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("part", sa.String(64), nullable=False),
        sa.Column("offset", sa.BigInteger(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("failed", sa.Boolean(), nullable=False),
        sa.Index(None, "batch", "part"),
    )


def downgrade() -> None:
    for table in ("batch_lines", "batch_chunks", "batches", "file_usage", "files"):
        op.drop_table(table)


def _of_batch() -> sa.Column[int]:
    return sa.Column(
        "batch",
        _NUMBER,
        sa.ForeignKey("batches.number", ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
    )


def _files() -> None:
    op.create_table(
        "files",
        sa.Column("number", _NUMBER, primary_key=True),
        sa.Column("id", sa.String(64), nullable=False, unique=True),
        sa.Column("tenant", sa.String(63), nullable=False),
        sa.Column("purpose", sa.String(32), nullable=False),
        sa.Column("filename", sa.String(255), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("ready", sa.Boolean(), nullable=False),
        sa.Column("created_s", sa.Double(), nullable=False),
        sa.Column("expires_s", sa.Double()),
        sa.Index(None, "tenant", "number"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "file_usage",
        sa.Column("tenant", sa.String(63), primary_key=True),
        sa.Column("files", sa.Integer(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
    )


def _batches() -> None:
    times = ("in_progress", "finalizing", "completed", "failed", "expired", "cancelling")
    op.create_table(
        "batches",
        sa.Column("number", _NUMBER, primary_key=True),
        sa.Column("id", sa.String(64), nullable=False, unique=True),
        sa.Column("tenant", sa.String(63), nullable=False),
        sa.Column("key_id", sa.String(63), nullable=False),
        sa.Column("family", sa.String(16), nullable=False),
        sa.Column("endpoint", sa.String(64), nullable=False),
        sa.Column("input_file_id", sa.String(64), nullable=False, index=True),
        sa.Column("completion_window", sa.String(8), nullable=False),
        sa.Column("output_ttl_s", sa.Double()),
        sa.Column("metadata", sa.JSON()),
        sa.Column("status", sa.String(16), nullable=False, index=True),
        sa.Column("frozen", sa.Boolean(), nullable=False),
        sa.Column("errors", sa.JSON()),
        sa.Column("model", sa.String(255)),
        sa.Column("total", sa.Integer(), nullable=False),
        sa.Column("completed", sa.Integer(), nullable=False),
        sa.Column("failed", sa.Integer(), nullable=False),
        sa.Column("not_computed", sa.Integer(), nullable=False),
        sa.Column("prompt_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cached_tokens", sa.BigInteger(), nullable=False),
        sa.Column("output_tokens", sa.BigInteger(), nullable=False),
        sa.Column("output_file_id", sa.String(64)),
        sa.Column("error_file_id", sa.String(64)),
        sa.Column("created_s", sa.Double(), nullable=False),
        sa.Column("expires_s", sa.Double(), nullable=False),
        *(sa.Column(f"{name}_s", sa.Double()) for name in (*times, "cancelled")),
        sa.Column("lease_owner", sa.String(64)),
        sa.Column("lease_until_s", sa.Double()),
        sa.Index(None, "tenant", "number"),
        sqlite_autoincrement=True,
    )
