"""SQLite as the store: one file on one machine, one writer at a time.

Refuses one with the WAL-reset bug, sets each connection's pragmas and reads them back. Called by
`service.store.database` alone.
"""

import importlib
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import sqlalchemy
from sqlalchemy import Connection, Engine, event

from service.errors import Refused
from service.settings import StoreSettings

# https://www.sqlite.org/wal.html#the_wal_reset_bug: fixed in 3.51.3 and in these two maintenance releases.
FIXED = (3, 51, 3)
BACKPORTS = {(3, 50): 7, (3, 44): 6}


def has_wal_reset_bug(version: tuple[int, int, int]) -> bool:
    """Whether this SQLite can lose committed transactions when two connections write and checkpoint."""
    if version >= FIXED or version < (3, 7, 0):
        return False
    return version[2] < BACKPORTS.get(version[:2], 1 << 30)


def sqlite_module() -> ModuleType:
    """The SQLite to use: the bundled one where there is a wheel, else Python's own."""
    try:
        return importlib.import_module("pysqlite3.dbapi2")
    except ImportError:
        return importlib.import_module("sqlite3")


def engine(settings: StoreSettings, options: Mapping[str, Any]) -> Engine:
    """An engine on the file; Refused with what to do where a commit would not be durable."""
    module = sqlite_module()
    if settings.journal == "wal" and has_wal_reset_bug(module.sqlite_version_info):
        raise Refused(
            f"SQLite {module.sqlite_version} has the WAL-reset bug (3.7.0 to 3.51.2): it can lose committed events. "
            "Install the wheel `pysqlite3>=0.6.1`, or use a Python with SQLite 3.51.3 or newer, or set "
            "KFP_TRIGGERS_STORE__JOURNAL=delete (slower, safe with any version)."
        )
    path = sqlalchemy.make_url(settings.url).database
    if path and path != ":memory:":
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    made = sqlalchemy.create_engine(settings.url, module=module, connect_args={"check_same_thread": False}, **options)
    journal, synchronous = ("wal", 2) if settings.journal == "wal" else ("delete", 3)

    @event.listens_for(made, "connect")
    def set_up(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # SQLAlchemy's `begin` event below opens transactions, not the driver
        cursor = connection.cursor()
        cursor.execute(f"pragma busy_timeout={int(settings.busy_timeout * 1000)}")
        found = cursor.execute(f"pragma journal_mode={journal}").fetchone()[0]
        cursor.execute(f"pragma synchronous={synchronous}")
        cursor.execute("pragma foreign_keys=on")
        in_force = (found, cursor.execute("pragma synchronous").fetchone()[0])
        cursor.close()
        if in_force != (journal, synchronous):
            raise Refused(
                f"the file system of {path} does not take journal_mode={journal} with synchronous={synchronous} "
                f"(it says {in_force}): put the store on a local disk"
            )

    @event.listens_for(made, "begin")
    def begin(connection: Connection) -> None:
        # A deferred transaction that turns into a writer fails at once when busy, whatever the time-out says.
        reading = connection.get_execution_options().get("read_only", False)
        connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")

    return made


def durability(connection: Connection) -> str:
    """What is in force, for a person."""
    version, journal, synchronous = (
        connection.exec_driver_sql(asked).scalar()
        for asked in ("select sqlite_version()", "pragma journal_mode", "pragma synchronous")
    )
    return f"SQLite {version}, journal_mode={journal}, synchronous={synchronous}"
