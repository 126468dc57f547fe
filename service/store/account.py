"""The account that always balances, recomputed from the rows: what `verify` prints and the gauges show."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, func, select

from service.lifecycle import TERMINAL, State
from service.records import EventState, PromotionState
from service.store.database import Database, micros
from service.store.promotions import SLOW
from service.store.tables import decision, double, event, promotion, run, run_transition


class SqlAccount:
    """The port `Account`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def verify(self, now: datetime, *, patience: timedelta, settle: timedelta) -> dict[str, Any]:
        """The account, and by name what contradicts the promises. Keys as the contract says."""
        with self._database.read() as connection:
            return {
                "events": _events(connection),
                "decisions": _decisions(connection),
                "runs": _counts(connection, run.c.state),
                "lost": _lost(connection),
                "stuck": _stuck(connection, now - patience, now - SLOW),
                "twice": _twice(connection),
                "unrecorded": _unrecorded(connection, now - patience - settle),
            }

    def gauges(self) -> dict[str, dict[str, int]]:
        """Counts by state, for /metrics."""
        with self._database.read() as connection:
            return {
                "event": _counts(connection, event.c.state),
                "decision": _counts(connection, decision.c.outcome),
                "run": _counts(connection, run.c.state),
                "promotion": _counts(connection, promotion.c.state),
                "double": _counts(connection, double.c.backend),
            }


def _counts(connection: Connection, column: Any) -> dict[str, int]:
    return {str(word): count for word, count in connection.execute(select(column, func.count()).group_by(column))}


def _events(connection: Connection) -> dict[str, int]:
    found = _counts(connection, event.c.state)
    ends = [state for state in EventState if state is not EventState.ACCEPTED]
    return {"accepted": sum(found.values())} | {str(state): found.get(state, 0) for state in ends}


def _decisions(connection: Connection) -> dict[str, int]:
    found = _counts(connection, decision.c.outcome)
    return {"skipped": found.get("skip", 0), "waiting": found.get("wait", 0), "attached": found.get("run", 0)}


def _lost(connection: Connection) -> Sequence[str]:
    """Decided events without a decision, decisions to run without their run, runs without a first transition."""
    no_decision = connection.scalars(
        select(event.c.id).where(event.c.state == EventState.DECIDED, event.c.id.not_in(select(decision.c.event_id)))
    )
    no_run = connection.scalars(
        select(decision.c.id).where(decision.c.outcome == "run", decision.c.run_key.not_in(select(run.c.run_key)))
    )
    no_history = connection.scalars(select(run.c.run_key).where(run.c.run_key.not_in(select(run_transition.c.run_key))))
    return (
        [f"event:{found}" for found in no_decision]
        + [f"decision:{found}" for found in no_run]
        + [f"run:{found}" for found in no_history]
    )


def _stuck(connection: Connection, since: datetime, begun: datetime) -> Sequence[str]:
    """What has been due for longer than recovery may take, runs past their time limit, moves that do not end.

    A move goes by when it began: its lease is renewed by every try, also by those that come to nothing.
    """
    late = micros(since)
    events = connection.scalars(select(event.c.id).where(event.c.due_at < late, event.c.lease_until < late))
    decisions = connection.scalars(select(decision.c.id).where(decision.c.due_at < late, decision.c.lease_until < late))
    runs = connection.scalars(
        select(run.c.run_key).where(
            ((run.c.due_at < late) & (run.c.lease_until < late))
            | (run.c.state.in_([State.SUBMITTED, State.RUNNING]) & (run.c.submitted_at + run.c.time_limit < late))
        )
    )
    moves = connection.scalars(
        select(promotion.c.id).where(promotion.c.state == PromotionState.MOVING, promotion.c.created_at < micros(begun))
    )
    return (
        [f"event:{found}" for found in events]
        + [f"decision:{found}" for found in decisions]
        + [f"run:{found}" for found in runs]
        + [f"promotion:{found}" for found in moves]
    )


def _twice(connection: Connection) -> Sequence[str]:
    """Two runs of one decision, one backend run under two keys, and every double that was found in a backend."""
    by_decision = connection.scalars(select(run.c.decision_id).group_by(run.c.decision_id).having(func.count() > 1))
    by_backend = connection.scalars(
        select(run.c.backend_id)
        .where(run.c.backend_id != "")
        .group_by(run.c.backend, run.c.backend_id)
        .having(func.count() > 1)
    )
    doubles = connection.execute(select(double.c.run_key, double.c.backend_id))
    return (
        [f"decision:{found}" for found in by_decision]
        + [f"backend:{found}" for found in by_backend]
        + [f"run:{row.run_key} also as {row.backend_id}" for row in doubles]
    )


def _unrecorded(connection: Connection, since: datetime) -> Sequence[str]:
    rows = connection.scalars(
        select(run.c.run_key).where(
            run.c.state.in_(TERMINAL - {State.SUPERSEDED, State.DEAD}),
            run.c.backend_id != "",
            run.c.recorded_at.is_(None),
            run.c.ended_at < micros(since),
        )
    )
    return [f"run:{found}" for found in rows]
