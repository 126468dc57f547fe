"""Deliveries and the events that they tell of: stored once, claimed, listed.

`accept` runs inside the writer's transaction (`service.store.writer`), alone: of two processes that take the same thing
at once the second one sees it. The rest is called by the flow and the doors.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, func, select
from ulid import ULID

from service.ledger import Arrival, Claim
from service.records import Accepted, DeliveryRecord, EventRecord, EventState, Query
from service.store import claims, episodes, tombstones
from service.store.database import Database, id_after, insert, maybe_moment, micros, moment
from service.store.paging import among, equals, page
from service.store.tables import decision, delivery, event
from triggers.event import Event, Verdict, key_of

# A delivery without its body, which may be large.
_LOOK = [
    *(column for column in delivery.c if column is not delivery.c.body),
    func.coalesce(delivery.c.body_size, func.length(delivery.c.body)).label("size"),
]

STATES = {
    Verdict.ACCEPTED: EventState.ACCEPTED,
    Verdict.IGNORED: EventState.IGNORED,
    Verdict.QUARANTINED: EventState.QUARANTINED,
}


def accept(connection: Connection, arrival: Arrival) -> Accepted:
    """Store a delivery and its new events; what is known already stays as it is."""
    source, reading = arrival.delivery.source, arrival.reading
    delivery_id, received_at = str(ULID()), micros(arrival.delivery.received_at)
    if known := tombstones.known(connection, source, tombstones.TRANSPORT, reading.transport_key, received_at):
        return Accepted(delivery_id=known.id, event_ids=known.event_ids, new_event_ids=())
    placed: list[tuple[str, str]] = []
    told: dict[str, tuple[str, str]] = {}  # one body may tell of a thing twice
    for item in reading.events:
        found = place(connection, source, item, received_at)
        placed.append(told.setdefault(found[1] or found[0], found))
    connection.execute(
        insert(connection, delivery).values(
            id=delivery_id,
            source=source,
            transport_key=reading.transport_key,
            received_at=received_at,
            headers=dict(arrival.headers),
            body=arrival.delivery.body,
            event_ids=[event_id for event_id, _ in placed],
        )
    )
    new = []
    for (event_id, identity), item in zip(placed, reading.events, strict=True):
        if not identity:
            continue
        row = row_of(item, source=source, only_rule=arrival.only_rule, received_at=received_at)
        row |= {"id": event_id, "delivery_id": delivery_id, "identity": identity}
        kept = insert(connection, event).values(row).on_conflict_do_nothing(index_elements=["source", "identity"])
        if connection.execute(kept).rowcount:
            new.append(event_id)
    return Accepted(delivery_id=delivery_id, event_ids=[event_id for event_id, _ in placed], new_event_ids=new)


def place(connection: Connection, source: str, item: Event, received_at: int) -> tuple[str, str]:
    """The id of the event and, if it is new, the identity to store it under.

    A move of a Git ref is known by the one before it: A→B→A→B is three events, but the same sha twice in a row is one.
    The ids of a ref sort as they came, whichever machine they came to.
    """
    if item.identity:
        identity = item.identity
        found = tombstones.known(connection, source, tombstones.IDENTITY, identity, received_at)
        return (found.id, "") if found else (str(ULID()), identity)
    of_stream = (event.c.source == source, event.c.stream == item.stream)
    last = connection.execute(
        select(event.c.id, event.c.position).where(*of_stream).order_by(event.c.id.desc()).limit(1)
    ).one_or_none()
    if last is not None and last.position == item.position:
        return last.id, ""
    before = last.id if last else None
    return id_after(before), key_of(item.stream, before, item.position)


def row_of(item: Event, *, source: str, only_rule: str, received_at: int) -> dict[str, Any]:
    return {
        "source": source,
        "type": item.type,
        "subject": item.subject,
        "time": micros(item.time),
        "received_at": received_at,
        "stream": item.stream,
        "position": item.position,
        "data": dict(item.data),
        "state": STATES[item.verdict],
        "reason": item.reason or "",
        "detail": item.detail,
        "causes": [],
        "run_key": item.run_key,
        "only_rule": only_rule,
        "due_at": received_at if item.verdict is Verdict.ACCEPTED else None,
    }


def record(row: Row[Any]) -> EventRecord:
    """A row as a value."""
    item = Event(
        type=row.type,
        subject=row.subject,
        time=moment(row.time),
        data=row.data,
        identity="" if row.stream else row.identity,
        stream=row.stream,
        position=row.position,
        run_key=row.run_key,
    )
    return EventRecord(
        id=row.id,
        delivery_id=row.delivery_id,
        source=row.source,
        event=item,
        received_at=moment(row.received_at),
        state=EventState(row.state),
        reason=row.reason,
        detail=row.detail,
        causes=row.causes,
        only_rule=row.only_rule,
    )


class SqlEvents:
    """The port `Events`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def accept(self, arrival: Arrival) -> Accepted:
        """One delivery in a transaction of its own: for the CLI and the listeners; the API has the writer."""
        with self._database.write(alone="accept") as connection:
            return accept(connection, arrival)

    def claim(self, event_id: str, taken: Claim) -> EventRecord | None:
        """The event if it is due and now ours to decide, else None."""
        return self.get(event_id) if claims.claim(self._database, event, event_id, taken) else None

    def get(self, event_id: str) -> EventRecord | None:
        """The event with this id."""
        with self._database.read() as connection:
            row = connection.execute(select(event).where(event.c.id == event_id)).one_or_none()
        return record(row) if row else None

    def due(self, now: datetime, limit: int) -> Sequence[str]:
        """Ids of events that wait for a decision."""
        return claims.due(self._database, event, now, limit)

    def head(self, source: str, repository: str, branch: str) -> EventRecord | None:
        """The last push to a branch that arrived."""
        wanted = select(event).where(
            event.c.source == source,
            event.c.type == "git.push",
            event.c.data["repository"].as_string() == repository,
            event.c.data["branch"].as_string() == branch,
        )
        with self._database.read() as connection:
            row = connection.execute(wanted.order_by(event.c.id.desc()).limit(1)).one_or_none()
        return record(row) if row else None

    def fires(self, item: EventRecord) -> bool:
        """Whether the alert that it tells of still fires, as far as was told."""
        with self._database.read() as connection:
            return item.event.type == "alert.firing" and not episodes.resolved(connection, item)

    def deliveries(self, query: Query) -> Sequence[DeliveryRecord]:
        """A page, newest first."""
        decided = among(event.c.id, decision.c.event_id, equals(decision.c.rule, query.rule))
        conditions = [
            equals(delivery.c.source, query.source),
            among(delivery.c.id, event.c.delivery_id, equals(event.c.state, query.state)),
            among(delivery.c.id, event.c.delivery_id, decided),
        ]
        wanted = page(delivery, query, delivery.c.received_at, conditions)
        with self._database.read() as connection:
            return [_delivery(row) for row in connection.execute(wanted.with_only_columns(*_LOOK))]

    def delivery(self, delivery_id: str) -> DeliveryRecord | None:
        """The delivery with this id."""
        with self._database.read() as connection:
            row = connection.execute(select(*_LOOK).where(delivery.c.id == delivery_id)).one_or_none()
        return _delivery(row) if row else None

    def list(self, query: Query) -> Sequence[EventRecord]:
        """A page, newest first."""
        conditions = [
            equals(event.c.source, query.source),
            equals(event.c.state, query.state),
            among(event.c.id, decision.c.event_id, equals(decision.c.rule, query.rule)),
        ]
        wanted = page(event, query, event.c.received_at, conditions)
        with self._database.read() as connection:
            return [record(row) for row in connection.execute(wanted)]


def _delivery(row: Row[Any]) -> DeliveryRecord:
    return DeliveryRecord(
        id=row.id,
        source=row.source,
        received_at=moment(row.received_at),
        headers=row.headers,
        size=row.size,
        event_ids=row.event_ids,
        body_hash=row.body_hash,
        emptied_at=maybe_moment(row.emptied_at),
    )
