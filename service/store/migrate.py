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
    """Bring it up to date; the versions before and after. Refused when it is a newer version's."""
    before, wanted = versions(database)
    _refuse_newer(database, before, wanted)
    if before != wanted:
        command.upgrade(_config(database), "head")
    return before, wanted


def _refuse_newer(database: Database, found: str | None, known: str | None) -> None:
    revisions = ScriptDirectory.from_config(_config(database)).walk_revisions()
    if found is not None and found not in {one.revision for one in revisions}:
        raise Refused(
            f"the store's schema is {found}, which a newer version of kfp-triggers made; this one knows up to {known}: "
            "start the newer version, or restore a copy of the store from before"
        )


def require_current(database: Database) -> None:
    """Refused unless the schema is this version's."""
    found, wanted = versions(database)
    _refuse_newer(database, found, wanted)
    if found != wanted:
        raise Refused(
            f"the store's schema is {found or 'empty'}, this version wants {wanted}: run `kfp-triggers migrate`"
        )
