"""PostgreSQL as the store: for more than one machine. What differs from SQLite is here, and nowhere else.

Every connection is looked at before it is used: one whose server would lose a commit is refused by name. Called by
`service.store.database` and by `kfp-triggers doctor`.
"""

from collections.abc import Mapping
from typing import Any, Literal

import sqlalchemy
from sqlalchemy import Connection, Engine, event, text
from sqlalchemy.exc import ArgumentError

from service.errors import Refused
from service.settings import StoreSettings

OLDEST = 13  #: major version; older ones get no fixes
#: What must be alone in the whole store, and the numbers that every version of us must agree on.
Alone = Literal["accept", "decide", "slots", "promote", "migrate"]
_LOCKS: Mapping[Alone, int] = {"accept": 1, "decide": 2, "slots": 3, "promote": 4, "migrate": 5}
_OURS = 0x6B667074  #: "kfpt": the first half of an advisory lock's key, so that other programs may have theirs

STATEMENT = 30.0  #: seconds that any statement may take
IDLE = 30.0  #: seconds after which the server ends a transaction whose process stands still, and frees its locks
#: For libpq, mostly so that a connection which leads nowhere is noticed; the URL may say otherwise.
NETWORK = {
    "application_name": "kfp-triggers",
    "client_encoding": "utf8",
    "connect_timeout": "5",
    "keepalives_idle": "10",
    "keepalives_interval": "3",
    "keepalives_count": "3",
    "tcp_user_timeout": "15000",
}

_SET_UP = """
select set_config('lock_timeout', %s, false), set_config('statement_timeout', %s, false),
       set_config('idle_in_transaction_session_timeout', %s, false)
"""
_LOOK = """
select current_setting('server_version') as version, current_setting('server_version_num')::int as number,
       current_setting('server_encoding') as encoding, current_setting('fsync') as fsync,
       current_setting('full_page_writes') as full_page_writes, pg_is_in_recovery() as standby,
       current_setting('synchronous_commit') as synchronous_commit,
       current_setting('default_transaction_read_only') as read_only
"""
# Pairs of the letters of an id: languages have letters of two, such as the Czech CH, which sorts behind H.
_ORDER = """
with letter as (select unnest(string_to_array('0123456789ABCDEFGHJKMNPQRSTVWXYZ', null)) as one),
     pair as (select a.one || b.one as two from letter a, letter b)
select array_agg(two order by two) = array_agg(two order by two collate "C") from pair
"""


def engine(settings: StoreSettings, options: Mapping[str, Any]) -> Engine:
    """An engine whose connections survive a restart of the server; they are made, and looked at, when first used."""
    made = sqlalchemy.create_engine(
        _url(settings.url),
        isolation_level="READ COMMITTED",  # whatever the database's default is: locks are taken, then rows are read
        pool_pre_ping=True,
        pool_size=5,
        max_overflow=15,
        pool_timeout=settings.busy_timeout,
        connect_args={"prepare_threshold": None},  # a plan kept from before a migration would fail after it
        **options,
    )

    @event.listens_for(made, "connect")
    def set_up(connection: Any, _record: Any) -> None:
        try:
            connection.autocommit = True
            limits = (settings.busy_timeout, STATEMENT, IDLE)
            connection.execute(_SET_UP, [f"{int(seconds * 1000)}ms" for seconds in limits])
            cursor = connection.execute(_LOOK)
            found = dict(zip((column.name for column in cursor.description), cursor.fetchone(), strict=True))
            _check(found)
            connection.autocommit = False
        except BaseException:
            connection.close()
            raise

    @event.listens_for(made, "first_connect")
    def check_order(connection: Any, _record: Any) -> None:
        (in_order,) = connection.execute(_ORDER).fetchone()
        connection.rollback()
        if not in_order:
            connection.close()
            raise Refused(
                "this PostgreSQL cannot be the store: the database's collation sorts letters in an order of its own, "
                "and queues go by the order of ids: make the database with TEMPLATE template0 LC_COLLATE 'C'"
            )

    return made


def _url(given: str) -> sqlalchemy.URL:
    """For our driver. Never the value in a message: it may hold a password."""
    try:
        url = sqlalchemy.make_url(given)
    except (ArgumentError, ValueError):
        raise Refused(
            "store.url cannot be read: it must look like postgresql://user:password@host:5432/database, with % and "
            "two hexadecimal digits for each of the signs /:@?#% in a password"
        ) from None
    if url.drivername not in {"postgresql", "postgresql+psycopg"}:
        raise Refused(f"store.url: there is no driver for {url.drivername}; write postgresql://")
    more = {name: value for name, value in NETWORK.items() if name not in url.query}
    return url.set(drivername="postgresql+psycopg").update_query_dict(more)


def _check(found: Mapping[str, Any]) -> None:
    """Refused with what to change, unless a commit that returns is on the server's disk."""
    problems = [
        f"{name}=off, by which a commit can be lost: set it to on"
        for name in ("fsync", "full_page_writes", "synchronous_commit")  # a role or a database may have its own
        if found[name] == "off"
    ]
    if found["number"] < OLDEST * 10_000:
        problems.append(f"version {found['version']}: {OLDEST} or newer is needed")
    if found["encoding"] != "UTF8":
        problems.append(f"the database's encoding is {found['encoding']}: make one with ENCODING 'UTF8'")
    if found["standby"]:
        problems.append("it is a standby, which takes no writes: name the primary")
    elif found["read_only"] == "on":
        problems.append("default_transaction_read_only=on: it takes no writes")
    if problems:
        raise Refused("this PostgreSQL cannot be the store: " + "; ".join(problems))


def alone(connection: Connection, what: Alone) -> None:
    """Wait until no other transaction does this, and keep others from it until this one ends.

    READ COMMITTED: each statement after it sees all that those before us have committed.
    """
    connection.execute(text("select pg_advisory_xact_lock(:ours, :what)"), {"ours": _OURS, "what": _LOCKS[what]})


#: The server is a standby now, it ended our session, or a table is away: it is being migrated or restored.
_PASSING = {"25006", "25P03", "42P01", "42703"}


def passing(error: object) -> bool:
    """Whether an error may go by that the driver does not call operational."""
    return getattr(error, "sqlstate", None) in _PASSING


def durability(connection: Connection) -> str:
    """What is in force, for a person."""
    found = connection.exec_driver_sql(_LOOK).one()
    names = ("fsync", "full_page_writes", "synchronous_commit")
    return f"PostgreSQL {found.version}, " + ", ".join(f"{name}={getattr(found, name)}" for name in names)


def clock(connection: Connection) -> float:
    """The server's time, in seconds since 1970."""
    return float(connection.exec_driver_sql("select extract(epoch from clock_timestamp())").scalar_one())
