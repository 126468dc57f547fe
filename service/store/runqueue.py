"""The queue of runs: which may be submitted now, who submits it, in which order and how fast.

Fits the port `Queue`. A run is claimed and its intent committed in one transaction (`begin`); locks are granted to who
waited longest (`admit`).
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, exists, func, insert, select, update

from service.ledger import Claim, Rate
from service.lifecycle import State
from service.records import RunRecord, Transition
from service.store import claims, pacing
from service.store.database import Database, micros
from service.store.runs import shift
from service.store.tables import lock, run
from triggers.reason import Reason


def _same(item: RunRecord) -> tuple[ColumnElement[bool], ...]:
    """Of the same rule on the same subject in the same backend."""
    return (run.c.rule == item.rule, run.c.subject == item.subject, run.c.backend == item.backend)


def _blocked() -> ColumnElement[bool]:
    """Whether an older run on its subject is yet to be submitted: a newer file's must not overtake it."""
    older = run.alias("older")
    before = (
        older.c.rule == run.c.rule,
        older.c.subject == run.c.subject,
        older.c.backend == run.c.backend,
        older.c.id < run.c.id,
        older.c.state.in_([State.READY, State.SUBMITTING]),
    )
    return (run.c.state == State.READY) & (run.c.subject != "") & exists().where(*before)


def _put_off(connection: Connection, item: RunRecord, taken: Claim, rate: Rate | None) -> bool:
    """Whether the rate allows no run now; then this one is due when those before it will have gone."""
    if rate is None or pacing.take(connection, item.backend, rate, taken.now):
        return False
    before = (run.c.backend == item.backend, run.c.state == State.READY, run.c.id <= item.id)
    ahead = connection.scalar(select(func.count()).select_from(run).where(*before)) or 1
    due_at = taken.now + timedelta(seconds=ahead / rate.per_second)
    connection.execute(
        update(run).where(run.c.run_key == item.run_key).values(detail=Reason.BACKEND_BUSY.text, due_at=micros(due_at))
    )
    return True


def _grant(connection: Connection, row: Any, now: datetime) -> bool:
    """Move it first: one that is cancelled meanwhile takes no slot along."""
    taken = set(connection.scalars(select(lock.c.slot).where(lock.c.name == row.lock)))
    free = next((slot for slot in range(row.lock_max) if slot not in taken), None)
    if free is None:
        return False
    move = Transition(
        run_key=row.run_key,
        at=now,
        before=State.WAITING,
        after=State.READY,
        reason=Reason.LOCK_GRANTED,
        detail=f"slot {free + 1} of {row.lock_max} of {row.lock}",
    )
    if not shift(connection, move, {"due_at": micros(now)}):
        return False
    connection.execute(insert(lock).values(name=row.lock, slot=free, run_key=row.run_key, taken_at=micros(now)))
    return True


class SqlQueue:
    """The port `Queue`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def begin(self, item: RunRecord, taken: Claim, rate: Rate | None = None) -> RunRecord | None:
        """Claim a due run and commit the intent to submit it, in one step; None when it is not its turn.

        Another has it; or one of the same rule on the same subject is before it; or the backend's rate is used up, and
        then it is due again when its turn should come. The record that comes back is the one from *before*: whether it
        was READY (never sent) or already SUBMITTING (may have been sent) decides whether the backend is searched first.
        """
        free = (
            run.c.run_key == item.run_key,
            run.c.state == item.state,
            run.c.state.in_([State.READY, State.SUBMITTING]),
            run.c.due_at <= micros(taken.now),
            run.c.lease_until < micros(taken.now),
            (run.c.state == State.SUBMITTING) | run.c.cancel_asked_at.is_(None),
        )
        with self._database.write() as connection:
            if connection.execute(select(run.c.id).where(*free, ~_blocked()).with_for_update()).one_or_none() is None:
                return None
            if item.state is State.READY and _put_off(connection, item, taken, rate):
                return None
            claim = {"holder": taken.holder, "lease_until": micros(taken.until), "attempts": run.c.attempts + 1}
            connection.execute(update(run).where(*free).values(**claim))
            if item.state is State.READY:
                move = Transition(
                    run_key=item.run_key,
                    at=taken.now,
                    before=State.READY,
                    after=State.SUBMITTING,
                    reason=Reason.SUBMITTING,
                    detail="",
                )
                # Due again when the lease ends: if we die now, the sweep finds it.
                shift(connection, move, {"due_at": micros(taken.until), "submitted_at": micros(taken.now)})
            return item

    def next_of(self, item: RunRecord) -> str | None:
        """The key of the oldest ready run of the same rule on the same subject, which waited for this one."""
        with self._database.read() as connection:
            return connection.scalar(
                select(run.c.run_key).where(*_same(item), run.c.state == State.READY).order_by(run.c.id).limit(1)
            )

    def postpone(self, run_key: str, state: State, due_at: datetime, detail: str, *, holder: str | None = None) -> None:
        """Leave it where it is and let go of it: due again then. With a `holder` only while that claim holds."""
        still = [run.c.run_key == run_key, run.c.state == state]
        if holder is not None:
            still.append(run.c.holder == holder)
        with self._database.write() as connection:
            connection.execute(update(run).where(*still).values(detail=detail, **claims.let_go(due_at)))

    def hurry(self, backend: str, now: datetime) -> Sequence[str]:
        """Make the longest ready run of a backend due now, if it was put off; its key, if there is one."""
        waiting = (run.c.backend == backend, run.c.state == State.READY, run.c.due_at > micros(now))
        with self._database.read() as connection:  # mostly there is none, and a look takes no write lock
            key = connection.scalar(select(run.c.run_key).where(*waiting).order_by(run.c.id).limit(1))
        if key is None:
            return []
        with self._database.write() as connection:
            connection.execute(update(run).where(run.c.run_key == key, *waiting).values(due_at=micros(now)))
        return [key]

    def admit(self, now: datetime) -> Sequence[str]:
        """Give every free slot of every lock to the longest waiting run; the keys of those that got one."""
        granted: list[str] = []
        with self._database.read() as connection:
            if connection.execute(select(run.c.id).where(run.c.state == State.WAITING).limit(1)).one_or_none() is None:
                return granted
        with self._database.write(alone="slots") as connection:
            waiting = connection.execute(
                select(run.c.run_key, run.c.lock, run.c.lock_max).where(run.c.state == State.WAITING).order_by(run.c.id)
            ).all()
            granted += [row.run_key for row in waiting if _grant(connection, row, now)]
        return granted

    def due(self, now: datetime, limit: int, backend: str | None = None) -> Sequence[str]:
        """Keys of runs that are to be submitted, to one backend or to any, the longest due first."""
        where = [] if backend is None else [run.c.backend == backend]
        with self._database.read() as connection:
            rows = connection.execute(
                select(run.c.run_key)
                .where(run.c.due_at <= micros(now), run.c.lease_until < micros(now), ~_blocked(), *where)
                .order_by(run.c.due_at)
                .limit(limit)
            )
            return [row.run_key for row in rows]

    def has_slot(self, name: str, slots: int) -> bool:
        """Whether a lock has a free slot."""
        with self._database.read() as connection:
            taken = connection.scalar(select(func.count()).select_from(lock).where(lock.c.name == name))
        return (taken or 0) < slots
