"""How often answers kept their class's limit for the first token."""

import sqlalchemy as sa
from alembic import op

revision = "0004_slo"
down_revision = "0003_ledger"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "slo_sums",
        sa.Column("hour_ms", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("tenant", sa.String(63), primary_key=True),
        sa.Column("model", sa.String(256), primary_key=True),
        sa.Column("priority_class", sa.String(63), primary_key=True),
        *(
            sa.Column(name, sa.BigInteger(), nullable=False)
            for name in ("met", "missed", "first_tokens", "ttft_ms")
        ),
    )


def downgrade() -> None:
    op.drop_table("slo_sums")
