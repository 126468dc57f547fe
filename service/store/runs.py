"""Runs: made by a decision, moved by the lifecycle's table alone, each move kept for ever.

`add` and `shift` run inside somebody's transaction; `SqlRuns` is the port.
"""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update
from ulid import ULID

from service import lifecycle
from service.ledger import Claim
from service.lifecycle import IN_BACKEND, TERMINAL, State
from service.records import Edge, Query, RunRecord, Transition
from service.store import claims, lineage
from service.store.database import Database, maybe_moment, micros, moment
from service.store.paging import among, equals, page
from service.store.tables import event, lock, run, run_transition
from triggers.reason import Reason

_COLUMNS = [item.name for item in fields(RunRecord)]
_TIMES = [name for name in _COLUMNS if name.endswith("_at")]


def record(row: Row[Any]) -> RunRecord:
    """A row as a value."""
    values = {name: getattr(row, name) for name in _COLUMNS}
    values |= {name: maybe_moment(values[name]) for name in _TIMES}
    return RunRecord(**values | {"state": State(row.state), "time_limit": row.time_limit / 1e6})


def add(connection: Connection, new: RunRecord, decision_id: str, now: datetime) -> None:
    """Write a new run, its first transition, and the lineage that its rule declares. Due at once unless it waits."""
    values = {name: getattr(new, name) for name in _COLUMNS}
    values |= {name: None if values[name] is None else micros(values[name]) for name in _TIMES}
    values |= {"id": str(ULID()), "decision_id": decision_id, "time_limit": int(new.time_limit * 1e6)}
    values["due_at"] = micros(now) if new.state is State.READY else None
    connection.execute(insert(run).values(**values))
    _note(
        connection,
        Transition(run_key=new.run_key, at=now, before="", after=new.state, reason=Reason.DECIDED, detail=""),
    )
    caused = Edge(source=f"event:{new.event_id}", relation="caused", target=f"run:{new.run_key}", run_key=new.run_key)
    node, key = f"run:{new.run_key}", new.run_key
    declared = [Edge(source=node, relation="declared", target=uri, run_key=key) for uri in new.writes]
    declared += [Edge(source=uri, relation="declared", target=node, run_key=key) for uri in new.reads]
    lineage.add(connection, [caused, *declared], now)


def shift(connection: Connection, move: Transition, changes: Mapping[str, Any]) -> bool:
    """Move a run if it is still where the caller saw it; a terminal move frees its lock."""
    lifecycle.check(State(move.before), move.after)
    changed = connection.execute(
        update(run)
        .where(run.c.run_key == move.run_key, run.c.state == move.before)
        .values(state=move.after, reason=move.reason, detail=move.detail, **changes)
    )
    if changed.rowcount != 1:
        return False
    _note(connection, move)
    if move.after in TERMINAL:
        connection.execute(lock.delete().where(lock.c.run_key == move.run_key))
    return True


def _note(connection: Connection, move: Transition) -> None:
    values = {item.name: getattr(move, item.name) for item in fields(move)}
    connection.execute(insert(run_transition).values(**values | {"at": micros(move.at)}))


class SqlRuns:
    """The port `Runs`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def move(self, move: Transition, *, due_at: datetime | None = None, **changes: Any) -> bool:
        """One move; False when the run was no longer where `move.before` says. Lets go of any claim."""
        columns = {name: micros(value) if isinstance(value, datetime) else value for name, value in changes.items()}
        with self._database.write() as connection:
            return shift(connection, move, columns | claims.let_go(due_at))

    def begin(self, item: RunRecord, taken: Claim) -> RunRecord | None:
        """Claim a due run and commit the intent to submit it, in one step; None when another has it.

        The record that comes back is the one from *before*: whether it was READY (never sent) or already SUBMITTING
        (may have been sent) decides whether the backend is searched first.
        """
        with self._database.write() as connection:
            changed = connection.execute(
                update(run)
                .where(
                    run.c.run_key == item.run_key,
                    run.c.state == item.state,
                    run.c.state.in_([State.READY, State.SUBMITTING]),
                    run.c.due_at <= micros(taken.now),
                    run.c.lease_until < micros(taken.now),
                )
                .values(holder=taken.holder, lease_until=micros(taken.until), attempts=run.c.attempts + 1)
            )
            if changed.rowcount != 1:
                return None
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

    def postpone(self, run_key: str, state: State, due_at: datetime, detail: str) -> None:
        """Leave it where it is and let go of it: due again then."""
        with self._database.write() as connection:
            connection.execute(
                update(run)
                .where(run.c.run_key == run_key, run.c.state == state)
                .values(detail=detail, **claims.let_go(due_at))
            )

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
        with self._database.write() as connection:
            waiting = connection.execute(
                select(run.c.run_key, run.c.lock, run.c.lock_max).where(run.c.state == State.WAITING).order_by(run.c.id)
            ).all()
            granted += [row.run_key for row in waiting if self._grant(connection, row, now)]
        return granted

    def _grant(self, connection: Connection, row: Any, now: datetime) -> bool:
        taken = set(connection.scalars(select(lock.c.slot).where(lock.c.name == row.lock)))
        free = next((slot for slot in range(row.lock_max) if slot not in taken), None)
        if free is None:
            return False
        connection.execute(insert(lock).values(name=row.lock, slot=free, run_key=row.run_key, taken_at=micros(now)))
        move = Transition(
            run_key=row.run_key,
            at=now,
            before=State.WAITING,
            after=State.READY,
            reason=Reason.LOCK_GRANTED,
            detail=f"slot {free + 1} of {row.lock_max} of {row.lock}",
        )
        return shift(connection, move, {"due_at": micros(now)})

    def ask_to_cancel(self, run_key: str, now: datetime) -> RunRecord | None:
        """Note that a person wants it ended; the next watch does it."""
        with self._database.write() as connection:
            connection.execute(
                update(run)
                .where(run.c.run_key == run_key, run.c.state.not_in(TERMINAL), run.c.cancel_asked_at.is_(None))
                .values(cancel_asked_at=micros(now))
            )
        return self.get(run_key)

    def recorded(self, run_key: str, edges: Sequence[Edge], outputs: Mapping[str, Any], now: datetime) -> None:
        """Its lineage is in: written in one step with the edges."""
        with self._database.write() as connection:
            lineage.add(connection, edges, now)
            connection.execute(
                update(run).where(run.c.run_key == run_key).values(recorded_at=micros(now), outputs=dict(outputs))
            )

    def get(self, run_key: str) -> RunRecord | None:
        """The run with this key."""
        found = self._all(select(run).where(run.c.run_key == run_key))
        return found[0] if found else None

    def due(self, now: datetime, limit: int) -> Sequence[str]:
        """Keys of runs that are to be submitted, the longest due first."""
        with self._database.read() as connection:
            rows = connection.execute(
                select(run.c.run_key)
                .where(run.c.due_at <= micros(now), run.c.lease_until < micros(now))
                .order_by(run.c.due_at)
                .limit(limit)
            )
            return [row.run_key for row in rows]

    def in_backends(self) -> Sequence[RunRecord]:
        """Those that a backend has and that have not ended."""
        return self._all(select(run).where(run.c.state.in_(IN_BACKEND)).order_by(run.c.id))

    def to_cancel(self) -> Sequence[RunRecord]:
        """Those that a person cancelled and that have not ended."""
        return self._all(select(run).where(run.c.cancel_asked_at.is_not(None), run.c.state.not_in(TERMINAL)))

    def unrecorded(self, since: datetime, until: datetime) -> Sequence[RunRecord]:
        """Those that ended in a backend between these times and whose lineage is not in."""
        ended = [State.SUCCEEDED, State.FAILED, State.CANCELLED, State.GONE]
        return self._all(
            select(run).where(
                run.c.state.in_(ended),
                run.c.backend_id != "",
                run.c.recorded_at.is_(None),
                run.c.ended_at.between(micros(since), micros(until)),
            )
        )

    def of_event(self, event_id: str) -> Sequence[RunRecord]:
        """Every run that an event made."""
        return self._all(select(run).where(run.c.event_id == event_id).order_by(run.c.id))

    def transitions(self, run_key: str) -> Sequence[Transition]:
        """Its history, oldest first."""
        wanted = select(run_transition).where(run_transition.c.run_key == run_key).order_by(run_transition.c.id)
        with self._database.read() as connection:
            return [
                Transition(
                    run_key=row.run_key,
                    at=moment(row.at),
                    before=row.before,
                    after=State(row.after),
                    reason=Reason(row.reason),
                    detail=row.detail,
                )
                for row in connection.execute(wanted)
            ]

    def list(self, query: Query) -> Sequence[RunRecord]:
        """A page, newest first."""
        conditions = [
            equals(run.c.rule, query.rule),
            equals(run.c.state, query.state),
            among(run.c.event_id, event.c.id, equals(event.c.source, query.source)),
        ]
        return self._all(page(run, query, run.c.created_at, conditions))

    def _all(self, wanted: Any) -> Sequence[RunRecord]:
        with self._database.read() as connection:
            return [record(row) for row in connection.execute(wanted)]
