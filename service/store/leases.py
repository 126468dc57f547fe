"""Leases by name: which process does the work of the clock. Also the rule sets that were ever in force."""

from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import select

from service.ledger import Claim
from service.store.database import Database, insert, micros
from service.store.tables import lease, rule_set


class SqlLeases:
    """The port `Leases`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def take(self, name: str, taken: Claim) -> bool:
        """Take or prolong the lease; False while another holds it."""
        now = micros(taken.now)
        with self._database.read() as connection:  # most calls lose, and a look takes no write lock
            row = connection.execute(select(lease).where(lease.c.name == name)).one_or_none()
        if row is not None and row.holder != taken.holder and row.until >= now:
            return False
        with self._database.write() as connection:
            statement = insert(connection, lease).values(name=name, holder=taken.holder, until=micros(taken.until))
            statement = statement.on_conflict_do_update(
                index_elements=["name"],
                set_={"holder": taken.holder, "until": micros(taken.until)},
                where=(lease.c.holder == taken.holder) | (lease.c.until < now),
            )
            return connection.execute(statement).rowcount == 1

    def give_back(self, name: str, holder: str) -> None:
        """Let the next one take it at once."""
        with self._database.write() as connection:
            connection.execute(lease.delete().where(lease.c.name == name, lease.c.holder == holder))

    def keep_rules(self, digest: str, files: Mapping[str, str], now: datetime) -> None:
        """Keep the text of a rule set, and that it is the last one taken up."""
        with self._database.write() as connection:
            row = {"hash": digest, "loaded_at": micros(now), "files": dict(files)}
            latest = {"loaded_at": row["loaded_at"], "files": row["files"]}
            statement = insert(connection, rule_set).values(row)
            connection.execute(statement.on_conflict_do_update(index_elements=["hash"], set_=latest))

    def last_rules(self) -> Mapping[str, str]:
        """The files of the set that was taken up last; none before the first."""
        with self._database.read() as connection:
            row = connection.execute(
                select(rule_set.c.files).order_by(rule_set.c.loaded_at.desc()).limit(1)
            ).one_or_none()
        return row.files if row else {}
