"""Which computation of a batch's line is paid for."""

import sqlalchemy as sa
from alembic import op

revision = "0007_billed_lines"
down_revision = "0006_autoscaling"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "billed_lines",
        sa.Column("line", sa.String(128), nullable=False),
        sa.Column("serial", sa.String(63), nullable=False),
        sa.Column("ended_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("line", name="pk_billed_lines"),
    )
    op.create_index("ix_billed_lines_ended_ms", "billed_lines", ["ended_ms"])


def downgrade() -> None:
    op.drop_table("billed_lines")
