"""How alembic runs the migrations: on the connection that it is given, and within its transaction.

Knows no database URL: that is the caller's.
"""

from alembic import context

from relay.store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,  # SQLite alters a table by making another one
)
with context.begin_transaction():
    context.run_migrations()
