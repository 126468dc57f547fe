"""Alembic's entry: runs the migrations in one transaction of the service's own Database."""

from alembic import context

from service.store.database import Database
from service.store.tables import metadata

database: Database = context.config.attributes["database"]
with database.write() as connection:
    context.configure(connection=connection, target_metadata=metadata, render_as_batch=True)
    context.run_migrations()
