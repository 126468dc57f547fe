"""Alembic's entry: runs the migrations in one transaction of the service's own Database, one process at a time.

What the database has is read after the wait for another that migrates: two at once are harmless.
"""

from alembic import context

from service.store.database import Database
from service.store.tables import metadata

database: Database = context.config.attributes["database"]
with database.write(alone="migrate") as connection:
    if connection.dialect.name == "postgresql":  # an index on a large table takes its time
        connection.exec_driver_sql("set local statement_timeout = 0")
    context.configure(connection=connection, target_metadata=metadata, render_as_batch=True)
    context.run_migrations()
