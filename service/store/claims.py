"""Claiming a row: a compare-and-set under a lease, the same for events, decisions and runs.

Whoever loses it goes away in milliseconds; whoever won it and died is replaced when the lease is over.
"""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection, Table, select, update

from service.ledger import Claim
from service.store.database import Database, micros


def claim(database: Database, table: Table, row_id: str, taken: Claim) -> bool:
    """Take a due row whose lease, if any, is over. Commits."""
    with database.write() as connection:
        changed = connection.execute(
            update(table)
            .where(table.c.id == row_id, table.c.due_at <= micros(taken.now), table.c.lease_until < micros(taken.now))
            .values(holder=taken.holder, lease_until=micros(taken.until), attempts=table.c.attempts + 1)
        )
        return changed.rowcount == 1


def still_held(connection: Connection, table: Table, row_id: str, holder: str) -> bool:
    """Whether the claim is still ours, and it stays ours until the transaction that acts on it ends."""
    return connection.scalar(select(table.c.holder).where(table.c.id == row_id).with_for_update()) == holder


def let_go(due: datetime | None) -> dict[str, object]:
    """The columns of a row that is no longer worked on: due again then, or never."""
    return {"due_at": None if due is None else micros(due), "holder": "", "lease_until": 0}


def due(database: Database, table: Table, now: datetime, limit: int) -> Sequence[str]:
    """Ids of rows that are due and not held, the longest due first."""
    with database.read() as connection:
        rows = connection.execute(
            select(table.c.id)
            .where(table.c.due_at <= micros(now), table.c.lease_until < micros(now))
            .order_by(table.c.due_at)
            .limit(limit)
        )
        return [row.id for row in rows]
