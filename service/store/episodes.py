"""Alerts as episodes, each from when it fired until it was resolved: what the guards of a rule look at.

Called by `service.store.decisions` inside its transaction, and by `.events`. Read from the events as they were told: a
person who fires an alert of old makes no episode.
"""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, select

from service.ledger import Ask
from service.records import EventRecord
from service.store.database import moment
from service.store.tables import delivery, event, run
from triggers.rules.gate import Episode

AT_MOST = 1000  #: tellings that are looked at, and deliveries, the latest: enough for what a person calls one trouble


def resolved(connection: Connection, item: EventRecord) -> bool:
    """Whether the episode that a firing alert tells of is over: resolved, or the alert has begun to fire anew.

    The second counts because a `resolved` can get lost: an alert fires once at a time.
    """
    if item.event.type != "alert.firing":
        return False
    began = _began(item.event.data, item.event.time)
    for row in _tellings(connection, item.source, {item.event.subject}):
        other = _began(row.data, moment(row.time))
        if (row.type == "alert.resolved" and other == began) or (row.type == "alert.firing" and other > began):
            return True
    return False


def tries(connection: Connection, ask: Ask) -> Sequence[Any]:
    """The rule's latest runs for alerts under its lock, the newest first: when made, and for which alert."""
    wanted = (
        select(run.c.created_at, event.c.source, event.c.subject)
        .join(event, event.c.id == run.c.event_id)
        .where(run.c.rule == ask.rule, run.c.lock == ask.lock, event.c.type == "alert.firing")
    )
    return connection.execute(wanted.order_by(run.c.created_at.desc()).limit(ask.tries)).all()


def episodes(connection: Connection, item: EventRecord, others: Collection[str]) -> tuple[Episode, ...]:
    """Every episode of the event's alert and of these others that was told of.

    One whose end was not told ends at the latest where the alert's next one begins, and says when it was last told
    of. Only the event's own alert is known to fire now.
    """
    began: dict[str, dict[datetime, list[str]]] = {}
    ended: dict[tuple[str, datetime], datetime] = {}
    for row in _tellings(connection, item.source, {item.event.subject, *others}):
        start = _began(row.data, moment(row.time))
        began.setdefault(row.subject, {}).setdefault(start, []).append(row.id)
        if row.type == "alert.resolved":
            ended[row.subject, start] = moment(row.time)
    known: list[Episode] = []
    untold: list[tuple[datetime, datetime | None, list[str]]] = []
    for subject, starts in began.items():
        ordered = sorted(starts)
        for start, after in zip(ordered, [*ordered[1:], None], strict=True):
            over = ended.get((subject, start))
            if over or (after is None and subject == item.event.subject):
                known.append(Episode(began=start, ended=over))
            else:
                untold.append((start, after, starts[start]))
    told = _last_told(connection, item.source, {one for _, _, ids in untold for one in ids})
    return *known, *(
        Episode(began=start, ended=after, told=max([start, *(told[one] for one in ids if one in told)]))
        for start, after, ids in untold
    )


def _last_told(connection: Connection, source: str, event_ids: Collection[str]) -> dict[str, datetime]:
    """When each of these events was last told of: a repeat makes no event, but its delivery is kept."""
    missing = set(event_ids)
    found: dict[str, datetime] = {}
    wanted = select(delivery.c.event_ids, delivery.c.received_at).where(delivery.c.source == source)
    rows = connection.execute(wanted.order_by(delivery.c.id.desc()).limit(AT_MOST)) if missing else ()
    for row in rows:
        told = missing.intersection(row.event_ids)
        found |= dict.fromkeys(told, moment(row.received_at))
        missing -= told
        if not missing:
            break
    return found


def _tellings(connection: Connection, source: str, subjects: Collection[str]) -> Sequence[Any]:
    wanted = select(event.c.id, event.c.type, event.c.subject, event.c.data, event.c.time).where(
        event.c.source == source,
        event.c.subject.in_(subjects),
        event.c.type.in_(["alert.firing", "alert.resolved"]),
        event.c.only_rule == "",
    )
    return connection.execute(wanted.order_by(event.c.id.desc()).limit(AT_MOST)).all()


def _began(data: Any, time: datetime) -> datetime:
    """When the episode began; the time of the telling where a person's own event does not say."""
    try:
        found = datetime.fromisoformat(str(data.get("starts_at", "")))
    except ValueError:
        found = time
    return found if found.tzinfo else time
