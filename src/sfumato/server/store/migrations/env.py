"""What alembic runs to migrate the database of a connection that it is given."""

from alembic import context

from sfumato.server.store.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
with context.begin_transaction():
    context.run_migrations()
