"""Bringing a database to this version's schema: `kfp-triggers migrate`, and `up` before it starts anything.

Expand first, contract a release later: an older process may still run beside a newer schema.
"""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from service.errors import Refused
from service.store.database import Database


def _config(database: Database) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["database"] = database
    return config


def versions(database: Database) -> tuple[str | None, str | None]:
    """The schema that the database has, and the one that this version wants."""
    with database.read() as connection:
        found = MigrationContext.configure(connection).get_current_revision()
    return found, ScriptDirectory.from_config(_config(database)).get_current_head()


def upgrade(database: Database) -> tuple[str | None, str | None]:
    """Bring it up to date; the versions before and after."""
    before, wanted = versions(database)
    if before != wanted:
        command.upgrade(_config(database), "head")
    return before, wanted


def require_current(database: Database) -> None:
    """Refused unless the schema is this version's."""
    found, wanted = versions(database)
    if found != wanted:
        raise Refused(
            f"the store's schema is {found or 'empty'}, this version wants {wanted}: run `kfp-triggers migrate`"
        )
