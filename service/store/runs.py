"""Runs: made by a decision, moved by the lifecycle's table alone, each move kept for ever.

`add` and `shift` run inside somebody's transaction; `SqlRuns` is the port.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, func, select, update

from service import lifecycle
from service.lifecycle import IN_BACKEND, TERMINAL, State
from service.records import Double, Edge, OpenRun, Query, RunRecord, Transition
from service.store import answers, claims, lineage
from service.store.database import Database, id_after, insert, maybe_moment, micros, moment
from service.store.paging import among, equals, page
from service.store.tables import double, event, lock, package, run, run_transition
from triggers.reason import Reason

_COLUMNS = [item.name for item in fields(RunRecord)]
_TIMES = [name for name in _COLUMNS if name.endswith("_at")]


def record(row: Row[Any]) -> RunRecord:
    """A row as a value."""
    values = {name: getattr(row, name) for name in _COLUMNS}
    values |= {name: maybe_moment(values[name]) for name in _TIMES}
    return RunRecord(**values | {"state": State(row.state), "time_limit": row.time_limit / 1e6})


def add(connection: Connection, new: RunRecord, decision_id: str, now: datetime) -> None:
    """Write a new run, its first transition, and the lineage that its rule declares. Due at once unless it waits.

    Its id sorts behind every other's, whichever machine made those: the order on a subject goes by it.
    """
    values = {name: getattr(new, name) for name in _COLUMNS}
    values |= {name: None if values[name] is None else micros(values[name]) for name in _TIMES}
    new_id = id_after(connection.scalar(select(func.max(run.c.id))))
    values |= {"id": new_id, "decision_id": decision_id, "time_limit": int(new.time_limit * 1e6)}
    values["due_at"] = micros(now) if new.state is State.READY else None
    connection.execute(insert(connection, run).values(**values))
    if new.retry_of:
        again = Edge(source=f"run:{new.retry_of}", relation="retried as", target=f"run:{new.run_key}")
        lineage.add(connection, [again], now)
    _note(
        connection,
        Transition(run_key=new.run_key, at=now, before="", after=new.state, reason=Reason.DECIDED, detail=""),
    )
    caused = Edge(source=f"event:{new.event_id}", relation="caused", target=f"run:{new.run_key}", run_key=new.run_key)
    node, key = f"run:{new.run_key}", new.run_key
    declared = [Edge(source=node, relation="declared", target=uri, run_key=key) for uri in new.writes]
    declared += [Edge(source=uri, relation="declared", target=node, run_key=key) for uri in new.reads]
    lineage.add(connection, [caused, *declared], now)


def shift(connection: Connection, move: Transition, changes: Mapping[str, Any], *, holder: str | None = None) -> bool:
    """Move a run if it is still where the caller saw it, and his if he says so; a terminal move frees its lock."""
    lifecycle.check(State(move.before), move.after)
    still = [run.c.run_key == move.run_key, run.c.state == move.before]
    if holder is not None:
        still.append(run.c.holder == holder)
    if move.after in TERMINAL:  # one that was taken up again may have been recorded late, at its first end
        changes = {"recorded_at": None, **changes}
    changed = connection.execute(
        update(run).where(*still).values(state=move.after, reason=move.reason, detail=move.detail, **changes)
    )
    if changed.rowcount != 1:
        return False
    _note(connection, move)
    if move.after in TERMINAL:
        connection.execute(lock.delete().where(lock.c.run_key == move.run_key))
    return True


def _note(connection: Connection, move: Transition) -> None:
    values = {item.name: getattr(move, item.name) for item in fields(move)}
    connection.execute(insert(connection, run_transition).values(**values | {"at": micros(move.at)}))


def _lock_again(connection: Connection, move: Transition) -> None:
    """It takes a slot of its lock if there is one left; if not, it runs beside whoever has it, as it does already."""
    row = connection.execute(select(run.c.lock, run.c.lock_max).where(run.c.run_key == move.run_key)).one()
    taken = set(connection.scalars(select(lock.c.slot).where(lock.c.name == row.lock)))
    free = next((slot for slot in range(row.lock_max) if slot not in taken), None)
    if row.lock and free is not None:
        connection.execute(
            insert(connection, lock).values(name=row.lock, slot=free, run_key=move.run_key, taken_at=micros(move.at))
        )


def keep(connection: Connection, digest: str, content: bytes, now: datetime) -> None:
    """Keep a compiled pipeline under its digest: the run that was decided on it gets this and no other."""
    if connection.execute(select(package.c.digest).where(package.c.digest == digest)).one_or_none() is None:
        connection.execute(insert(connection, package).values(digest=digest, content=content, kept_at=micros(now)))


class SqlRuns:
    """The port `Runs`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def move(
        self, move: Transition, *, holder: str | None = None, due_at: datetime | None = None, **changes: Any
    ) -> bool:
        """One move; False when the run was no longer where `move.before` says. Lets go of any claim.

        With a `holder` only while that claim holds: who slept past its lease must not undo what another did since.
        """
        columns = {name: micros(value) if isinstance(value, datetime) else value for name, value in changes.items()}
        with self._database.write() as connection:
            return shift(connection, move, columns | claims.let_go(due_at), holder=holder)

    def ask_to_cancel(self, run_key: str, now: datetime, reason: Reason = Reason.CANCEL_ASKED) -> RunRecord | None:
        """Note that a person, or the clock, wants it ended; the next watch does it."""
        with self._database.write() as connection:
            connection.execute(
                update(run)
                .where(run.c.run_key == run_key, run.c.state.not_in(TERMINAL), run.c.cancel_asked_at.is_(None))
                .values(cancel_asked_at=micros(now), cancel_reason=reason)
            )
        return self.get(run_key)

    def cancel_sent(self, run_key: str, now: datetime) -> None:
        """Its backend was told to end it."""
        first = func.coalesce(run.c.cancel_sent_at, micros(now))
        with self._database.write() as connection:
            told = update(run).where(run.c.run_key == run_key)
            connection.execute(told.values(cancel_sent_at=first, cancel_told_at=micros(now)))

    def revive(self, move: Transition) -> bool:
        """A run that had ended runs again in its backend: its end, and what was recorded of it, are void."""
        ended = dict.fromkeys(("ended_at", "recorded_at", "cancel_asked_at", "cancel_sent_at", "cancel_told_at"))
        texts = dict.fromkeys(("error", "failed_task", "cancel_reason"), "")
        with self._database.write(alone="slots") as connection:
            begun = {"submitted_at": micros(move.at)}  # its time limit counts anew
            revived = shift(connection, move, {**ended, **texts, **begun, **claims.let_go(None)})
            if revived:
                _lock_again(connection, move)
                answers.reopen(connection, move.run_key, move.at)
            return revived

    def double(self, found: Double) -> bool:
        """Note a second run under a key; False when it was known."""
        values = {item.name: getattr(found, item.name) for item in fields(found)}
        values |= {"found_at": micros(found.found_at), "cancelled_at": None}
        with self._database.write() as connection:
            return bool(connection.execute(insert(connection, double).values(values).on_conflict_do_nothing()).rowcount)

    def double_cancelled(self, found: Double, now: datetime) -> None:
        """Its backend was told to end it."""
        same = (double.c.backend == found.backend, double.c.backend_id == found.backend_id)
        with self._database.write() as connection:
            connection.execute(update(double).where(*same).values(cancelled_at=micros(now)))

    def doubles(self, *, open_only: bool = False) -> Sequence[Double]:
        """Every double that was found, or those that their backend was not yet told to end."""
        wanted = select(double).order_by(double.c.found_at)
        if open_only:
            wanted = wanted.where(double.c.cancelled_at.is_(None))
        with self._database.read() as connection:
            return [
                Double(
                    run_key=row.run_key,
                    backend=row.backend,
                    backend_id=row.backend_id,
                    found_at=moment(row.found_at),
                    cancelled_at=maybe_moment(row.cancelled_at),
                )
                for row in connection.execute(wanted)
            ]

    def package(self, digest: str) -> bytes | None:
        """The compiled pipeline that was kept when a run on it was decided."""
        with self._database.read() as connection:
            return connection.scalar(select(package.c.content).where(package.c.digest == digest))

    def gives(self, run_key: str, digest: str, *, holder: str) -> bool:
        """Note the digest of the secrets that it is about to be given; False when that claim holds no more."""
        mine = (run.c.run_key == run_key, run.c.holder == holder)
        with self._database.write() as connection:
            return connection.execute(update(run).where(*mine).values(secret_digest=digest)).rowcount == 1

    def given(self, run_key: str) -> str:
        """The digest of the secrets that it was given last, "" for none. In no record, so that nothing shows it."""
        with self._database.read() as connection:
            return connection.scalar(select(run.c.secret_digest).where(run.c.run_key == run_key)) or ""

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

    def in_backends(self) -> Sequence[OpenRun]:
        """Those that a backend has and that have not ended."""
        wanted = select(*(run.c[item.name] for item in fields(OpenRun))).where(run.c.state.in_(IN_BACKEND))
        with self._database.read() as connection:
            return [
                OpenRun(
                    run_key=key,
                    state=State(state),
                    backend=backend,
                    backend_id=backend_id,
                    time_limit=limit / 1e6,
                    created_at=moment(created),
                    submitted_at=maybe_moment(submitted),
                    cancel_asked_at=maybe_moment(asked),
                    cancel_sent_at=maybe_moment(sent),
                )
                for key, state, backend, backend_id, limit, created, submitted, asked, sent in connection.execute(
                    wanted.order_by(run.c.id)
                )
            ]

    def awaited(self) -> Collection[str]:
        """The backends of which somebody waits for an answer to a submission."""
        with self._database.read() as connection:
            return set(connection.scalars(select(run.c.backend).where(run.c.state == State.SUBMITTING).distinct()))

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
