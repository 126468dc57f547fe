"""Opening the database so that a commit that returned is on the disk.

Refuses a SQLite with the WAL-reset bug, sets each connection's pragmas and reads them back. Called by
`service.wiring` and the migrations; knows no table.
"""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import sqlalchemy
from sqlalchemy import Connection, Engine, event
from sqlalchemy.exc import DBAPIError, OperationalError

from service.errors import Refused, Temporary
from service.settings import StoreSettings

# https://www.sqlite.org/wal.html#the_wal_reset_bug: fixed in 3.51.3 and in these two maintenance releases.
FIXED = (3, 51, 3)
BACKPORTS = {(3, 50): 7, (3, 44): 6}

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def micros(moment: datetime) -> int:
    """An aware time as the store keeps it."""
    return (moment - EPOCH) // timedelta(microseconds=1)


def moment(value: int) -> datetime:
    """The reverse of `micros`, exact."""
    return EPOCH + timedelta(microseconds=value)


def maybe_moment(value: int | None) -> datetime | None:
    """`moment` of a column that may be empty."""
    return None if value is None else moment(value)


def has_wal_reset_bug(version: tuple[int, int, int]) -> bool:
    """Whether this SQLite can lose committed transactions when two connections write and checkpoint."""
    if version >= FIXED or version < (3, 7, 0):
        return False
    return version[2] < BACKPORTS.get(version[:2], 1 << 30)


class Database:
    """One engine, with the two kinds of transaction."""

    def __init__(self, settings: StoreSettings) -> None:
        self.url = settings.url
        self.engine = _sqlite(settings) if settings.url.startswith("sqlite") else _engine(settings.url)

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that holds the write lock from its start; durable when the block ends without an error."""
        with _translated(), self.engine.begin() as connection:
            yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A consistent look."""
        with _translated(), self.engine.connect() as connection:
            yield connection.execution_options(read_only=True)

    def close(self) -> None:
        """Let go of every connection."""
        self.engine.dispose()


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except OperationalError as error:
        raise Temporary(f"the store does not take it now: {error.orig}", delay=1.0) from error
    except DBAPIError as error:
        if error.connection_invalidated:
            raise Temporary("the connection to the store broke", delay=1.0) from error
        raise


def _engine(url: str, **more: Any) -> Engine:
    """Parameters stay hidden: an error's text would carry a row's content into the log."""
    return sqlalchemy.create_engine(url, hide_parameters=True, **more)


def sqlite_module() -> ModuleType:
    """The SQLite to use: the bundled one where there is a wheel, else Python's own."""
    try:
        return importlib.import_module("pysqlite3.dbapi2")
    except ImportError:
        return importlib.import_module("sqlite3")


def _sqlite(settings: StoreSettings) -> Engine:
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
    engine = _engine(settings.url, module=module, connect_args={"check_same_thread": False})
    journal, synchronous = ("wal", 2) if settings.journal == "wal" else ("delete", 3)

    @event.listens_for(engine, "connect")
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

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # A deferred transaction that turns into a writer fails at once when busy, whatever the time-out says.
        reading = connection.get_execution_options().get("read_only", False)
        connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")

    return engine
