"""Answers that the admin API keeps for requests that are sent again."""

import sqlalchemy as sa
from alembic import op

revision = "0002_idempotency"
down_revision = "0001_tenancy"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "idempotency_keys",
        sa.Column("digest", sa.String(64), primary_key=True),
        sa.Column("request", sa.String(64), nullable=False),
        sa.Column("answer", sa.LargeBinary(), nullable=False),
        sa.Column("created_s", sa.Double(), nullable=False, index=True),
    )


def downgrade() -> None:
    op.drop_table("idempotency_keys")
