"""What is left of events and deliveries that retention removed: hashes by which a late redelivery is still known.

Written by `.retention`, asked by `.events` inside the transaction that takes a delivery in.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import JSON, BigInteger, Connection, Row, String, column, text, update

from service.store.database import insert
from service.store.tables import tombstone

IDENTITY, TRANSPORT = "identity", "transport"
RENEWED = timedelta(days=30) // timedelta(microseconds=1)  #: an alert that fires for years is told of every few hours


def _known(here: str, kind: str) -> Any:
    """A row of the table `here`, or what is left of one. As text, made once: every delivery asks twice or more."""
    return text(
        f"select id, event_ids, cast(null as bigint) as until from ({here}) as here union all "  # noqa: S608  # no input
        f"select ref, event_ids, until from tombstone where source = :source and kind = '{kind}' and \"key\" = :key"
    ).columns(column("id", String), column("event_ids", JSON), column("until", BigInteger))


_KNOWN = {
    TRANSPORT: _known("select id, event_ids from delivery where source = :source and transport_key = :key", TRANSPORT),
    IDENTITY: _known("select id, causes as event_ids from event where source = :source and identity = :key", IDENTITY),
}


def known(connection: Connection, source: str, kind: str, key: str, now: int) -> Row[Any] | None:
    """The delivery with this transport key, or the event with this identity, or what is left of it.

    What is told of again is kept for another month at least.
    """
    row = connection.execute(_KNOWN[kind], {"source": source, "key": key}).first()
    if row is not None and row.until is not None and row.until < now + RENEWED:
        same = (tombstone.c.source == source, tombstone.c.kind == kind, tombstone.c.key == key)
        connection.execute(update(tombstone).where(*same).values(until=now + RENEWED))
    return row


def leave(connection: Connection, kind: str, rows: Sequence[Any], until: Sequence[int]) -> None:
    """Leave one for each row: of an event under its identity, of a delivery under its transport key."""
    left = [
        {
            "source": row.source,
            "kind": kind,
            "key": row.identity if kind == IDENTITY else row.transport_key,
            "ref": row.id,
            "event_ids": [row.id] if kind == IDENTITY else row.event_ids,
            "until": until,
        }
        for row, until in zip(rows, until, strict=True)
    ]
    if left:
        connection.execute(insert(connection, tombstone).on_conflict_do_nothing(), left)
