"""What the autoscaler decided, and why."""

import sqlalchemy as sa
from alembic import op

revision = "0006_autoscaling"
down_revision = "0005_batches"
branch_labels = None
depends_on = None

_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "autoscaling_decisions",
        sa.Column("number", _NUMBER, primary_key=True),
        sa.Column("at_s", sa.Double(), nullable=False),
        sa.Column("model", sa.String(255), nullable=False),
        sa.Column("policy", sa.String(63), nullable=False),
        sa.Column("changed", sa.Boolean(), nullable=False),
        sa.Column("targets", sa.JSON(), nullable=False),
        sa.Column("targets_before", sa.JSON(), nullable=False),
        sa.Column("usd_per_hour", sa.Double(), nullable=False),
        sa.Column("spill_share", sa.Double(), nullable=False),
        sa.Column("explanation", sa.JSON(), nullable=False),
        sa.Column("state", sa.JSON(), nullable=False),
        sa.Index("ix_autoscaling_decisions_model_at_s", "model", "at_s"),
        sa.Index("ix_autoscaling_decisions_at_s", "at_s"),
        sqlite_autoincrement=True,
    )


def downgrade() -> None:
    op.drop_table("autoscaling_decisions")
