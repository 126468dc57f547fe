"""How far each bucket was looked through for objects that no notification told of, and which of them are known."""

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, select, update

from service.records import Scan
from service.store.database import Database, insert, maybe_moment, micros, moment
from service.store.tables import event, scan, tombstone
from service.store.tombstones import IDENTITY
from triggers.event import Event

_SECOND, _DAY = timedelta(seconds=1), timedelta(days=1)


class SqlScans:
    """The port `Scans`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def list(self) -> Sequence[Scan]:
        """All of them."""
        with self._database.read() as connection:
            return [_record(row) for row in connection.execute(select(scan).order_by(scan.c.source, scan.c.bucket))]

    def begin(self, source: str, bucket: str, at: datetime) -> Scan:
        """The bucket's row: from this moment on if it has none yet."""
        with self._database.write() as connection:
            first = {"source": source, "bucket": bucket, "since": micros(at), "mark": micros(at)}
            connection.execute(insert(connection, scan).values(first).on_conflict_do_nothing())
            return _record(connection.execute(select(scan).where(*_of(source, bucket))).one())

    def end(self, done: Scan) -> None:
        """Write what a look came to. The mark never goes back."""
        values = {
            "looked_at": None if done.looked_at is None else micros(done.looked_at),
            "ended_at": None if done.ended_at is None else micros(done.ended_at),
            "took": int(done.seconds * 1_000_000),
            "seen": done.seen,
            "found": done.found,
            "problem": done.problem,
        }
        with self._database.write() as connection:
            mine = _of(done.source, done.bucket)
            connection.execute(update(scan).where(*mine).values(values))
            connection.execute(
                update(scan).where(*mine, scan.c.mark < micros(done.mark)).values(mark=micros(done.mark))
            )

    def drop(self, source: str, bucket: str) -> None:
        """Forget how far it was looked through: the next look is the first one."""
        with self._database.write() as connection:
            connection.execute(scan.delete().where(*_of(source, bucket)))

    def known(self, source: str, found: Sequence[Event]) -> Collection[str]:
        """The identities, of these, of events that are here, or were and were pruned."""
        wanted = [one.identity for one in found]
        with self._database.read() as connection:
            here = select(event.c.identity).where(event.c.source == source, event.c.identity.in_(wanted))
            gone = select(tombstone.c.key).where(
                tombstone.c.source == source, tombstone.c.kind == IDENTITY, tombstone.c.key.in_(wanted)
            )
            known = {*connection.scalars(here), *connection.scalars(gone)}
            return known | _nearly(connection, source, [one for one in found if one.identity not in known])


def _nearly(connection: Connection, source: str, found: Sequence[Event]) -> set[str]:
    """A store that lists whole seconds, as AWS does, notifies of another millisecond, and later: the same content then.

    MinIO lists milliseconds, which are the notification's.
    """
    vague = [one for one in found if not one.data["version_id"] and not one.time.microsecond]
    if not vague:
        return set()
    subjects = event.c.subject.in_([one.subject for one in vague])
    wanted = select(event.c.subject, event.c.time, event.c.data["etag"].as_string().label("etag"))
    rows = connection.execute(wanted.where(event.c.source == source, event.c.type == "object.created", subjects)).all()
    return {
        one.identity
        for one in vague
        for row in rows
        if (row.subject, row.etag) == (one.subject, one.data["etag"])
        and -_SECOND <= moment(row.time) - one.time <= _DAY
    }


def _of(source: str, bucket: str) -> tuple[Any, Any]:
    return scan.c.source == source, scan.c.bucket == bucket


def _record(row: Row[Any]) -> Scan:
    return Scan(
        source=row.source,
        bucket=row.bucket,
        since=moment(row.since),
        mark=moment(row.mark),
        looked_at=maybe_moment(row.looked_at),
        ended_at=maybe_moment(row.ended_at),
        seconds=row.took / 1_000_000,
        seen=row.seen,
        found=row.found,
        problem=row.problem,
    )
