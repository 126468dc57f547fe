"""Answers to code hosts: written with the run that they are about, told after it, each once.

`add` and `reopen` run inside somebody's transaction; `SqlAnswers` is the port `Answers`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, insert, or_, select, update
from ulid import ULID

from service.ledger import Claim
from service.lifecycle import TERMINAL
from service.records import Answer, AnswerState
from service.store import claims
from service.store.database import Database, micros, moment
from service.store.tables import answer, run

UNRECORDED = timedelta(minutes=10)  #: after a run's end, in which its reports may still be read

_COLUMNS = [item.name for item in fields(Answer)]


def record(row: Row[Any]) -> Answer:
    """A row as a value."""
    values = {name: getattr(row, name) for name in _COLUMNS}
    return Answer(**values | {"state": AnswerState(row.state), "created_at": moment(row.created_at)})


def add(connection: Connection, new: Answer, now: datetime) -> None:
    """Write it, due at once."""
    values = {name: getattr(new, name) for name in _COLUMNS}
    values |= {"id": str(ULID()), "created_at": micros(new.created_at), **claims.let_go(now)}
    connection.execute(insert(answer).values(**values))


def reopen(connection: Connection, run_key: str, now: datetime) -> None:
    """Its run was taken up again: what was told of its end is void."""
    changed = {"state": AnswerState.OPEN, "told": "", "detail": "", "attempts": 0, **claims.let_go(now)}
    connection.execute(update(answer).where(answer.c.run_key == run_key).values(**changed))


def _has_news(now: datetime) -> ColumnElement[bool]:
    """Nothing was told yet, or the run has ended and all that it reported is in."""
    read = or_(run.c.recorded_at.is_not(None), run.c.backend_id == "", run.c.ended_at < micros(now - UNRECORDED))
    return or_(answer.c.told == "", run.c.state.in_(TERMINAL) & read)


class SqlAnswers:
    """The port `Answers`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def due(self, now: datetime, limit: int) -> Sequence[str]:
        """Ids of those that there is something to tell of, the longest due first."""
        wanted = (
            select(answer.c.id)
            .join(run, run.c.run_key == answer.c.run_key)
            .where(answer.c.due_at <= micros(now), answer.c.lease_until < micros(now), _has_news(now))
        )
        with self._database.read() as connection:
            return list(connection.scalars(wanted.order_by(answer.c.due_at).limit(limit)))

    def claim(self, answer_id: str, taken: Claim) -> Answer | None:
        """The answer if it is due and now ours to tell, else None."""
        if not claims.claim(self._database, answer, answer_id, taken):
            return None
        return self._one(answer.c.id == answer_id)

    def told(self, item: Answer, told: str, *, holder: str, due_at: datetime) -> None:
        """So much was told; tries count anew."""
        self._change(item, holder, {"told": told, "detail": "", "attempts": 0, **claims.let_go(due_at)})

    def later(self, item: Answer, detail: str, *, holder: str, due_at: datetime) -> None:
        """It could not be told now."""
        self._change(item, holder, {"detail": detail, **claims.let_go(due_at)})

    def end(self, item: Answer, state: AnswerState, detail: str, *, holder: str) -> None:
        """All is told, or never will be."""
        self._change(item, holder, {"state": state, "detail": detail, **claims.let_go(None)})

    def of_run(self, run_key: str) -> Answer | None:
        """The answer about a run, None when nobody is to be told of it."""
        return self._one(answer.c.run_key == run_key)

    def _one(self, condition: ColumnElement[bool]) -> Answer | None:
        with self._database.read() as connection:
            row = connection.execute(select(answer).where(condition)).one_or_none()
        return record(row) if row else None

    def _change(self, item: Answer, holder: str, columns: Mapping[str, Any]) -> None:
        """Only while the claim holds: who slept past its lease must not undo what another did since."""
        with self._database.write() as connection:
            connection.execute(
                update(answer).where(answer.c.id == item.id, answer.c.holder == holder).values(**columns)
            )
