"""Alembic's entry: migrates over the connection, and in the transaction, that `Database.migrate` holds."""

from alembic import context

from kinetics_serve.ledger.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
