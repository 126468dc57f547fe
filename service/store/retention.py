"""Letting go of what is old: bodies first, then events with all that hangs on them, then deliveries, then their keys.

Fits the port `Retention`. Every call is one short transaction of at most so many rows. An event goes as a whole, with
its decisions, runs and edges, and only when nothing of it is unfinished and nothing younger came of it.
"""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, bindparam, delete, exists, func, literal, or_, select, update

from service.ledger import Keep
from service.lifecycle import OPEN, State
from service.records import EventState
from service.store import tombstones
from service.store.database import Database, micros, moment
from service.store.tables import (
    answer,
    decision,
    delivery,
    double,
    event,
    lineage_edge,
    observation,
    promotion,
    run,
    run_transition,
    tombstone,
)

PUT_OFF = timedelta(days=1)  #: when an old event that is still needed is looked at again
ROWS = 5  #: that an event has at least with one run: itself, decision, run, moves, an edge
_OF_RUN = (answer, observation, double, run_transition)


class SqlRetention:
    """The port `Retention`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def empty_bodies(self, now: datetime, before: datetime, limit: int) -> Mapping[str, int]:
        """Raw bodies that arrived before then, but for those that wait for a decision, or for a person."""
        waits = exists().where(
            event.c.delivery_id == delivery.c.id, event.c.state.in_([EventState.ACCEPTED, EventState.QUARANTINED])
        )
        old = (delivery.c.emptied_at.is_(None), delivery.c.received_at < micros(before), ~waits)
        wanted = select(delivery.c.id).where(*old).order_by(delivery.c.received_at).limit(limit)
        with self._database.read() as connection:  # mostly there is none, and a look takes no write lock
            ids = list(connection.scalars(wanted))
        if not ids:
            return {}
        with self._database.write() as connection:
            return {"body": empty(connection, ids, now)}

    def prune(self, now: datetime, before: datetime, keep: Keep, limit: int) -> Mapping[str, int]:
        """Events that arrived before then and are needed no more, with all that hangs on them."""
        due = or_(event.c.retain_until.is_(None), event.c.retain_until < micros(now))
        ended = (event.c.state != EventState.ACCEPTED, event.c.due_at.is_(None))
        wanted = select(event.c.id).where(event.c.received_at < micros(before), due, *ended)
        with self._database.read() as connection:
            ids = list(connection.scalars(wanted.order_by(event.c.received_at).limit(max(1, limit // ROWS))))
        if not ids:
            return {}
        with self._database.write(alone="decide") as connection:
            # Looked at again and kept from changing: a run may be revived, a dead letter retried, at this moment.
            again = select(event.c.id).where(event.c.id.in_(ids), *ended).order_by(event.c.received_at)
            ids = list(connection.scalars(again.with_for_update()))
            connection.execute(select(run.c.id).where(run.c.event_id.in_(ids)).with_for_update())
            needed = _needed(connection, ids, micros(before))
            put_off = update(event).where(event.c.id.in_(needed))
            connection.execute(put_off.values(retain_until=micros(now + PUT_OFF)))
            return _prune(connection, _few(connection, [one for one in ids if one not in needed], limit), keep)

    def prune_deliveries(self, before: datetime, keep: Keep, limit: int) -> Mapping[str, int]:
        """Deliveries that arrived before then and that no event hangs on."""
        free = ~exists().where(event.c.delivery_id == delivery.c.id)
        wanted = select(delivery.c.id, delivery.c.source, delivery.c.transport_key, delivery.c.event_ids)
        wanted = wanted.add_columns(delivery.c.received_at).where(delivery.c.received_at < micros(before), free)
        with self._database.read() as connection:
            rows = connection.execute(wanted.order_by(delivery.c.received_at).limit(limit)).all()
        if not rows:
            return {}
        with self._database.write(alone="accept") as connection:
            _leave(connection, tombstones.TRANSPORT, rows, keep)
            gone = connection.execute(delete(delivery).where(delivery.c.id.in_([row.id for row in rows])))
            return {"delivery": gone.rowcount}

    def prune_keys(self, now: datetime, limit: int) -> Mapping[str, int]:
        """What was left of them, when no sender will tell of it any more."""
        with self._database.read() as connection:
            old = connection.scalars(select(tombstone.c.until).where(tombstone.c.until < micros(now)).limit(limit))
            until = max(old, default=None)
        if until is None:
            return {}
        with self._database.write() as connection:
            return {"tombstone": connection.execute(delete(tombstone).where(tombstone.c.until <= until)).rowcount}


def empty(connection: Connection, ids: Sequence[str], now: datetime) -> int:
    """Empty the bodies of these deliveries; their size and hash stay."""
    wanted = select(delivery.c.id, delivery.c.body).where(delivery.c.id.in_(ids), delivery.c.emptied_at.is_(None))
    left = [
        {"which": row.id, "size": len(row.body), "hash": hashlib.sha256(row.body).hexdigest()}
        for row in connection.execute(wanted)
    ]
    if left:
        values = {
            "body": b"",
            "body_size": bindparam("size"),
            "body_hash": bindparam("hash"),
            "emptied_at": micros(now),
        }
        connection.execute(update(delivery).where(delivery.c.id == bindparam("which")).values(values), left)
    return len(left)


def _leave(connection: Connection, kind: str, rows: Sequence[Any], keep: Keep) -> None:
    until = [micros(keep.until(row.source, moment(row.received_at))) for row in rows]
    tombstones.leave(connection, kind, rows, until)


def _needed(connection: Connection, ids: Sequence[str], before: int) -> set[str]:
    """Those of these events that are unfinished, or that something else still leans on."""
    mine, later = run.c.event_id.in_(ids), run.alias("later")
    newer = (later.c.rule == run.c.rule, later.c.id > run.c.id)
    open_run = or_(
        run.c.state.in_(OPEN), run.c.due_at.is_not(None), func.coalesce(run.c.ended_at, run.c.created_at) >= before
    )
    # A cooldown, a budget and `rule.last_success` look at a rule's latest runs.
    latest = or_(
        ~exists().where(*newer),
        (run.c.state == State.SUCCEEDED) & ~exists().where(*newer, later.c.state == State.SUCCEEDED),
    )
    logged = exists().where(promotion.c.run_key == run.c.run_key)
    untold = exists().where(answer.c.run_key == run.c.run_key, answer.c.due_at.is_not(None))
    waits = or_(decision.c.due_at.is_not(None), decision.c.outcome == "wait")
    # By a ref's last push the next one is known, and `git_head` reads it.
    after = event.alias("after")
    last = (event.c.stream != "") & ~exists().where(
        after.c.source == event.c.source,
        after.c.stream == event.c.stream,
        after.c.type == event.c.type,
        after.c.id > event.c.id,
    )
    told = lineage_edge.c.target.startswith("event:", autoescape=True)
    told_on = exists().where(lineage_edge.c.source == literal("event:").concat(event.c.id), told)
    found = set(connection.scalars(select(run.c.event_id).where(mine, or_(open_run, latest, logged, untold))))
    found |= set(connection.scalars(select(decision.c.event_id).where(decision.c.event_id.in_(ids), waits)))
    found |= set(connection.scalars(select(event.c.id).where(event.c.id.in_(ids), or_(last, told_on))))
    return found | set(connection.scalars(select(run.c.event_id).where(mine, _leaned_on())))


def _leaned_on() -> ColumnElement[bool]:
    """Whether something that the run made was read, or told of, since: by what is still in the store.

    Not through a thing that another run wrote anew in between.
    """
    made, used, anew = lineage_edge.alias("made"), lineage_edge.alias("used"), lineage_edge.alias("anew")
    sibling = run.alias("sibling")
    own = exists().where(sibling.c.run_key == used.c.run_key, sibling.c.event_id == run.c.event_id).correlate(run, used)
    overwritten = exists().where(
        anew.c.target == made.c.target,
        anew.c.run_key != made.c.run_key,
        anew.c.run_key != used.c.run_key,
        anew.c.source == literal("run:").concat(anew.c.run_key),
        anew.c.at > made.c.at,
        anew.c.at <= used.c.at,
    )
    return exists().where(
        made.c.run_key == run.c.run_key,
        made.c.source == literal("run:").concat(run.c.run_key),
        used.c.source == made.c.target,
        ~own,
        ~overwritten,
    )


def _few(connection: Connection, ids: Sequence[str], limit: int) -> Sequence[str]:
    """The first of them that have at most so many rows together; one at least."""
    rows: Counter[str] = Counter(ids)
    for table, column in ((decision, decision.c.event_id), (run, run.c.event_id)):
        counted = select(column, func.count()).select_from(table).where(column.in_(ids)).group_by(column)
        for one, count in connection.execute(counted):
            rows[one] += count
    for table in (*_OF_RUN, lineage_edge):
        joined = select(run.c.event_id, func.count()).select_from(table).join(run, run.c.run_key == table.c.run_key)
        counted = joined.where(run.c.event_id.in_(ids)).group_by(run.c.event_id)
        for one, count in connection.execute(counted):
            rows[one] += count
    few: list[str] = []
    total = 0
    for one in ids:
        total += rows[one]
        if few and total > limit:
            break
        few.append(one)
    return few


def _prune(connection: Connection, ids: Sequence[str], keep: Keep) -> Mapping[str, int]:
    if not ids:
        return {}
    rows = connection.execute(select(event).where(event.c.id.in_(ids))).all()
    _leave(connection, tombstones.IDENTITY, rows, keep)
    keys = list(connection.scalars(select(run.c.run_key).where(run.c.event_id.in_(ids))))
    nodes = [f"run:{key}" for key in keys] + [f"event:{one}" for one in ids]
    hanging = or_(lineage_edge.c.run_key.in_(keys), lineage_edge.c.source.in_(nodes), lineage_edge.c.target.in_(nodes))
    gone = {"lineage_edge": connection.execute(delete(lineage_edge).where(hanging)).rowcount}
    for table in _OF_RUN:
        gone[table.name] = connection.execute(delete(table).where(table.c.run_key.in_(keys))).rowcount
    for table in (run, decision):
        gone[table.name] = connection.execute(delete(table).where(table.c.event_id.in_(ids))).rowcount
    gone["event"] = connection.execute(delete(event).where(event.c.id.in_(ids))).rowcount
    return gone
