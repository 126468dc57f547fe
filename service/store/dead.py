"""Dead letters: quarantined events, decisions that the service failed on time and again, dead runs.

Fits the port `DeadLetters`. Nothing is deleted: each thing that a person does is an appended row of `handling`.
"""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, exists, literal, select, update
from ulid import ULID

from service.lifecycle import State
from service.records import Accepted, DeadLetter, DeadQuery, EventState, Handling, Kind, Transition
from service.store import claims, events
from service.store.database import Database, insert, maybe_moment, micros, moment
from service.store.paging import equals
from service.store.runs import shift
from service.store.tables import decision, delivery, event, handling, run
from triggers.event import Delivery, Event, Reading, key_of
from triggers.reason import Reason

_EVENT = event.c.state == EventState.QUARANTINED
_DECISION = (decision.c.outcome == "skip") & (decision.c.reason == Reason.POISON)


def _run() -> ColumnElement[bool]:
    """Dead, and not started anew: a generation after it waits, or was made."""
    after = (
        decision.c.event_id == run.c.event_id,
        decision.c.rule == run.c.rule,
        decision.c.generation == run.c.generation + 1,
        decision.c.outcome != "skip",
    )
    return (run.c.state == State.DEAD) & ~exists().where(*after)


_EVENTS = select(event.c.id.label("key"), event, event.c.id.label("event_id"), event.c.received_at.label("at"))
_DECISIONS = select(
    decision.c.id.label("key"), decision, event.c.source, event.c.subject, decision.c.decided_at.label("at")
).join(event, event.c.id == decision.c.event_id)
_RUNS = select(run.c.run_key.label("key"), run, event.c.source, run.c.ended_at.label("at")).join(
    event, event.c.id == run.c.event_id
)


def _letter(kind: Kind, row: Row[Any]) -> DeadLetter:
    return DeadLetter(
        kind=kind,
        key=row.key,
        event_id=row.event_id,
        source=row.source,
        rule="" if kind is Kind.EVENT else row.rule,
        subject=row.subject,
        reason=row.reason,
        detail=row.detail,
        at=maybe_moment(row.at) or moment(row.created_at),
    )


def note(connection: Connection, done: Handling) -> None:
    """Keep what a person did."""
    connection.execute(insert(connection, handling).values(asdict(done) | {"id": str(ULID()), "at": micros(done.at)}))


class SqlDeadLetters:
    """The port `DeadLetters`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def list(self, query: DeadQuery) -> Sequence[DeadLetter]:
        """Those that meet the filters, the oldest first; at most `limit` of each kind."""
        found: list[DeadLetter] = []
        with self._database.read() as connection:
            for kind, wanted, table, at in (
                (Kind.EVENT, _EVENTS.where(_EVENT), event, event.c.received_at),
                (Kind.DECISION, _DECISIONS.where(_DECISION), decision, decision.c.decided_at),
                (Kind.RUN, _RUNS.where(_run()), run, run.c.ended_at),
            ):
                conditions = [
                    equals(event.c.source, query.source),
                    equals(table.c.reason, query.reason),
                    equals(literal("") if kind is Kind.EVENT else table.c.rule, query.rule),
                    None if query.before is None else at < micros(query.before),
                ]
                page = wanted.where(*(one for one in conditions if one is not None)).order_by(at).limit(query.limit)
                found += [_letter(kind, row) for row in connection.execute(page)]
        return sorted(found, key=lambda one: one.at)

    def get(self, key: str) -> DeadLetter | None:
        """The one with this id or run key; None when there is none, or it is dead no more."""
        with self._database.read() as connection:
            for kind, wanted in (
                (Kind.EVENT, _EVENTS.where(_EVENT, event.c.id == key)),
                (Kind.DECISION, _DECISIONS.where(_DECISION, decision.c.id == key)),
                (Kind.RUN, _RUNS.where(_run(), run.c.run_key == key)),
            ):
                if (row := connection.execute(wanted).one_or_none()) is not None:
                    return _letter(kind, row)
        return None

    def body(self, event_id: str) -> Delivery | None:
        """The delivery that first told of an event as it was kept; None when its body is no longer kept."""
        wanted = select(delivery).join(event, event.c.delivery_id == delivery.c.id).where(event.c.id == event_id)
        with self._database.read() as connection:
            row = connection.execute(wanted).one_or_none()
        if row is None or row.emptied_at is not None or not row.body:
            return None
        return Delivery(source=row.source, headers=row.headers, body=row.body, received_at=moment(row.received_at))

    def read_again(self, found: DeadLetter, reading: Reading, done: Handling) -> Accepted | None:
        """Admit what a quarantined event's delivery is understood to tell now; None when it is quarantined no more.

        The delivery's row stays, and gets the transport key that it should have had, unless another arrival of the
        same notification has it: then nothing is new.
        """
        with self._database.write(alone="accept") as connection:
            mine = connection.execute(
                select(delivery)
                .join(event, event.c.delivery_id == delivery.c.id)
                .where(event.c.id == found.key, _EVENT)
                .with_for_update()
            ).one_or_none()
            if mine is None:
                return None
            same = (delivery.c.source == mine.source, delivery.c.transport_key == reading.transport_key)
            other = connection.scalar(select(delivery.c.event_ids).where(*same, delivery.c.id != mine.id))
            if other is None:
                told, new = _admit(connection, mine, reading, done.at)
                ids = list(dict.fromkeys([*mine.event_ids, *told]))
                changed = {"event_ids": ids, "transport_key": reading.transport_key}
                connection.execute(update(delivery).where(delivery.c.id == mine.id).values(**changed))
            else:
                told, new = other, []
            self._end(connection, found.key, state=EventState.IGNORED, reason=Reason.READ_AGAIN, detail="")
            note(connection, done)
        return Accepted(delivery_id=mine.id, event_ids=told, new_event_ids=new)

    def _end(self, connection: Connection, event_id: str, **values: Any) -> bool:
        changed = connection.execute(update(event).where(event.c.id == event_id, _EVENT).values(**values))
        return changed.rowcount == 1

    def again(self, found: DeadLetter, done: Handling) -> bool:
        """Decide anew what the service itself had failed on; False when it is no longer so."""
        due = {**claims.let_go(done.at), "attempts": 0}
        replayed = {"reason": Reason.REPLAYED, "detail": Reason.REPLAYED.text}
        with self._database.write() as connection:
            if found.kind is Kind.EVENT:
                same = (event.c.id == found.key, _EVENT, event.c.reason == Reason.POISON)
                fresh = {"state": EventState.ACCEPTED, "reason": "", "detail": "", **due}
                changed = connection.execute(update(event).where(*same).values(**fresh))
            else:
                waits = {"outcome": "wait", **replayed, **due}
                changed = connection.execute(
                    update(decision).where(decision.c.id == found.key, _DECISION).values(**waits)
                )
            if changed.rowcount == 1:
                note(connection, done)
            return changed.rowcount == 1

    def discard(self, found: DeadLetter, done: Handling) -> bool:
        """Put it away for good; False when it is dead no more."""
        with self._database.write() as connection:
            if found.kind is Kind.EVENT:
                ended = self._end(connection, found.key, state=EventState.DISCARDED)
            elif found.kind is Kind.DECISION:
                away = update(decision).where(decision.c.id == found.key, _DECISION)
                ended = connection.execute(away.values(reason=Reason.DISCARDED)).rowcount == 1
            else:
                detail = f"by {done.by}: {done.why}"
                move = Transition(
                    run_key=found.key,
                    at=done.at,
                    before=State.DEAD,
                    after=State.DISCARDED,
                    reason=Reason.DISCARDED,
                    detail=detail,
                )
                ended = shift(connection, move, {})
            if ended:
                note(connection, done)
            return ended

    def bury(self, now: datetime, tries: int) -> Sequence[str]:
        """Quarantine events, and end decisions, that were claimed so often and never let go of; their ids."""
        stopped: list[str] = []
        for table, values in (
            (event, {"state": EventState.QUARANTINED}),
            (decision, {"outcome": "skip", "decided_at": micros(now)}),
        ):
            hopeless = [
                table.c.due_at <= micros(now),
                table.c.lease_until < micros(now),
                table.c.holder != "",
                table.c.attempts >= tries,
            ]
            if table is decision:
                hopeless.append(decision.c.outcome == "wait")
            with self._database.read() as connection:  # mostly there is none, and a look takes no write lock
                ids = list(connection.scalars(select(table.c.id).where(*hopeless).limit(100)))
            why = {"reason": Reason.POISON, "detail": f"after {tries} tries", **claims.let_go(None)}
            for one in ids:
                with self._database.write() as connection:
                    buried = update(table).where(table.c.id == one, *hopeless).values(**values, **why)
                    stopped += [one] * connection.execute(buried).rowcount
        return stopped

    def note(self, done: Handling) -> None:
        """Keep what a person did to something else."""
        with self._database.write() as connection:
            note(connection, done)

    def notes(self, what: str, key: str) -> Sequence[Handling]:
        """What was done about it, the oldest first."""
        wanted = select(handling).where(handling.c.what == what, handling.c.key == key).order_by(handling.c.id)
        with self._database.read() as connection:
            return [
                Handling(what=row.what, key=row.key, action=row.action, by=row.by, why=row.why, at=moment(row.at))
                for row in connection.execute(wanted)
            ]


def _admit(connection: Connection, mine: Row[Any], reading: Reading, now: datetime) -> tuple[list[str], list[str]]:
    """The ids of all that the delivery tells, and of what is new of it: due now, but told of when it arrived."""
    told: list[str] = []
    new: list[str] = []
    for item in reading.events:
        event_id, identity = _place(connection, mine, item)
        told.append(event_id)
        if identity:
            row = events.row_of(item, source=mine.source, only_rule="", received_at=mine.received_at)
            row |= {"id": event_id, "delivery_id": mine.id, "identity": identity}
            row["due_at"] = row["due_at"] and micros(now)
            kept = insert(connection, event).values(row).on_conflict_do_nothing(index_elements=["source", "identity"])
            if connection.execute(kept).rowcount:
                new.append(event_id)
    return told, new


def _place(connection: Connection, mine: Row[Any], item: Event) -> tuple[str, str]:
    """As of an arrival; but the place of a ref's move in its stream is where it arrived, before what came since."""
    if item.identity:
        event_id, identity = events.place(connection, mine.source, item, mine.received_at)
    else:
        identity = key_of("read again", mine.id, item.stream, item.position)
        same = (event.c.source == mine.source, event.c.identity == identity)
        event_id = connection.scalar(select(event.c.id).where(*same)) or ""
        identity = "" if event_id else identity
    return (str(ULID.from_datetime(moment(mine.received_at))) if identity else event_id), identity
