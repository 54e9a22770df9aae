"""The ledger: usage records, their sums, replica-hours, and what has arrived of each outbox."""

import sqlalchemy as sa
from alembic import op

revision = "0003_ledger"
down_revision = "0002_idempotency"
branch_labels = None
depends_on = None

_KEYS = (
    ("tenant", 63),
    ("key", 63),
    ("model", 128),
    ("asked", 256),
    ("pool", 63),
    ("priority_class", 63),
    ("endpoint", 63),
    ("label", 64),
    ("spill", 16),
)
_SUMS = (
    "requests",
    "legs",
    "prompt_tokens",
    "cached_tokens",
    "output_tokens",
    "billed_prompt_tokens",
    "billed_cached_tokens",
    "billed_output_tokens",
    "images",
    "nano_usd",
    "asked_nano_usd",
    "prefill_us",
    "decode_us",
    "untold_prompt_tokens",
    "untold_output_tokens",
)


def upgrade() -> None:
    _records()
    op.create_table(
        "usage_sums",
        sa.Column("hour_ms", sa.BigInteger(), primary_key=True, autoincrement=False),
        *(sa.Column(name, sa.String(size), primary_key=True) for name, size in _KEYS),
        sa.Column("batch", sa.Boolean(), primary_key=True, autoincrement=False),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in _SUMS),
    )
    op.create_index("ix_usage_sums_tenant_hour_ms", "usage_sums", ["tenant", "hour_ms"])
    op.create_table(
        "replica_hours",
        sa.Column("hour_ms", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("replica", sa.String(128), primary_key=True),
        sa.Column("model", sa.String(128), nullable=False),
        sa.Column("pool", sa.String(63), nullable=False),
        sa.Column("first_ms", sa.BigInteger(), nullable=False),
        sa.Column("last_ms", sa.BigInteger(), nullable=False),
        sa.Column("market", sa.String(16), nullable=False),
        sa.Column("nano_usd_per_hour", sa.BigInteger(), nullable=False),
        sa.Column("on_demand_nano_usd_per_hour", sa.BigInteger(), nullable=False),
    )
    op.create_table(
        "ledger_outboxes",
        sa.Column("name", sa.String(128), primary_key=True),
        sa.Column("committed", sa.BigInteger(), nullable=False),
        sa.Column("updated_ms", sa.BigInteger(), nullable=False),
    )


def downgrade() -> None:
    for table in ("ledger_outboxes", "replica_hours", "usage_sums", "usage_records"):
        op.drop_table(table)


def _records() -> None:
    text = (
        ("request", 128),
        ("tenant", 63),
        ("key", 63),
        ("model", 128),
        ("asked", 256),
        ("adapter", 256),
        ("pool", 63),
        ("replica", 128),
        ("prefill_replica", 128),
        ("priority_class", 63),
        ("endpoint", 63),
        ("label", 64),
        ("part", 16),
        ("loss", 16),
        ("spill", 16),
    )
    counts = ("started_ms", "ended_ms", *_SUMS[2:8], "nano_usd", "asked_nano_usd")
    op.create_table(
        "usage_records",
        sa.Column("leg", sa.String(160), primary_key=True),
        *(sa.Column(name, sa.String(size), nullable=False) for name, size in text),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in counts),
        sa.Column("images", sa.Integer(), nullable=False),
        sa.Column("requests", sa.Integer(), nullable=False),
        sa.Column("billed", sa.Boolean(), nullable=False),
        sa.Column("batch", sa.Boolean(), nullable=False),
        sa.Column("prefill_us", sa.BigInteger()),
        sa.Column("decode_us", sa.BigInteger()),
    )
    op.create_index("ix_usage_records_tenant_ended_ms", "usage_records", ["tenant", "ended_ms"])
    op.create_index("ix_usage_records_ended_ms", "usage_records", ["ended_ms"])
