"""Alembic runs this for each migration. The connection is that of the caller, in its transaction
(:func:`weir.database.migrate`)."""

from alembic import context

from weir.database.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
