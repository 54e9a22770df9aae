"""What of a batch is for which model."""

import sqlalchemy as sa
from alembic import op

revision = "0008_batch_models"
down_revision = "0007_billed_lines"
branch_labels = None
depends_on = None

# Of the batches that run; of those whose lines name several models it is not known any more.
_FILL = """
    INSERT INTO batch_models
        (batch, model, lines, bytes, done, prompt_tokens, cached_tokens, output_tokens)
    SELECT batches.number, batches.model, batches.total, coalesce(files.bytes, 0),
        batches.completed + batches.failed,
        batches.prompt_tokens, batches.cached_tokens, batches.output_tokens
    FROM batches LEFT JOIN files ON files.id = batches.input_file_id
    WHERE batches.status = 'in_progress' AND batches.model IS NOT NULL
"""


def upgrade() -> None:
    number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "batch_models",
        sa.Column("batch", number, autoincrement=False, nullable=False),
        sa.Column("model", sa.String(255), nullable=False),
        sa.Column("lines", sa.Integer(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("done", sa.Integer(), nullable=False),
        sa.Column("prompt_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cached_tokens", sa.BigInteger(), nullable=False),
        sa.Column("output_tokens", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["batch"],
            ["batches.number"],
            name="fk_batch_models_batch_batches",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("batch", "model", name="pk_batch_models"),
    )
    op.execute(_FILL)


def downgrade() -> None:
    op.drop_table("batch_models")
