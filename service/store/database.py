"""Opening the database so that a commit that returned is on the disk, and its two kinds of transaction.

Called by `service.wiring` and the migrations; knows no table. What SQLite and PostgreSQL each need is in
`service.store.sqlite` and `.postgres`.
"""

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Table
from sqlalchemy.dialects import postgresql as postgresql_dialect
from sqlalchemy.dialects import sqlite as sqlite_dialect
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from ulid import ULID

from service.errors import Temporary
from service.settings import StoreSettings
from service.store import postgres, sqlite
from service.store.doubt import Doubt
from service.store.postgres import Alone
from triggers.payload import clean

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


def id_after(last: str | None) -> str:
    """A new id that sorts behind the last one, though another machine made that one by a clock ahead of ours."""
    new = str(ULID())
    return new if last is None or new > last else str(ULID.from_int(int(ULID.from_str(last)) + 1))


def storable(value: Any) -> Any:
    """A JSON value as either store takes it and shows it: no NUL, no half of a letter, no NaN or Infinity."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, Mapping):
        return {clean(str(name)): storable(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [storable(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _json(value: Any) -> str:
    try:
        text = json.dumps(value, allow_nan=False)
    except ValueError:
        return json.dumps(storable(value), allow_nan=False)
    return json.dumps(storable(value)) if "\\u0000" in text or "\\ud" in text else text


class Database:
    """One engine, with the two kinds of transaction."""

    def __init__(self, settings: StoreSettings) -> None:
        self.url = settings.url
        self._kind = sqlite if settings.url.startswith("sqlite") else postgres
        # Parameters stay hidden: an error's text would carry a row's content into the log.
        counted = {"preserve_rowcount": True}  # of an INSERT that leaves what is there, too
        options = {"hide_parameters": True, "json_serializer": _json, "execution_options": counted}
        self.engine = self._kind.engine(settings, options)
        self.doubt = Doubt(self.engine)

    @contextmanager
    def write(self, alone: Alone | None = None) -> Iterator[Connection]:
        """A transaction that is durable when the block ends without an error.

        On SQLite it is the only one that writes from its start to its end. On PostgreSQL others write beside it: what
        acts on more rows than those it changes says what it must be `alone` in; the rest is compare-and-set on rows.
        Temporary also when the connection broke during the commit: what was written may be there.
        """
        self.doubt.clear()
        with _translated(), self.engine.begin() as connection:
            if alone is not None and self._kind is postgres:
                postgres.alone(connection, alone)
            yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A consistent look: all that it reads is of one moment."""
        options: dict[str, Any] = {"read_only": True}
        if self._kind is postgres:
            options = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
        with _translated(), self.engine.connect() as connection:
            yield connection.execution_options(**options)

    def durability(self) -> str:
        """Which database it is and what makes its commits durable, for a person."""
        with self.read() as connection:
            return postgres.durability(connection) if self._kind is postgres else sqlite.durability(connection)

    def ahead(self, now: datetime) -> float | None:
        """By how many seconds the database's clock is ahead of ours; None where it has none of its own."""
        if self._kind is sqlite:
            return None
        with self.read() as connection:
            return postgres.clock(connection) - now.timestamp()

    def close(self) -> None:
        """Let go of every connection."""
        self.engine.dispose()


def insert(connection: Connection, table: Table) -> Any:
    """An INSERT that may say `on_conflict_…`: both databases have it, SQLAlchemy only by dialect."""
    dialect = postgresql_dialect if connection.dialect.name == "postgresql" else sqlite_dialect
    return dialect.insert(table)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except PoolTimeout as error:
        raise Temporary("the store does not take it now: every connection is in use", delay=1.0) from error
    except DBAPIError as error:
        if isinstance(error, OperationalError) or error.connection_invalidated or postgres.passing(error.orig):
            said = str(error.orig).partition("\n")[0]
            raise Temporary(f"the store does not take it now: {said}", delay=1.0) from error
        raise
