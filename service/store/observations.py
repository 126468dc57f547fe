"""What runs found of models: each once a run, kept for ever. Written by `service.flow.record`, read by /metrics,
`drift show` and the read API.

The newest is the one whose moment (`as_of`) is newest: an old file that is scored late says nothing of today.
"""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Row, and_, exists, func, not_, select
from ulid import ULID

from service.records import Observation, Query
from service.store.database import Database, insert, micros, moment
from service.store.paging import equals, page
from service.store.tables import observation, promotion

_COLUMNS = [item.name for item in fields(Observation)]


def record(row: Row[Any]) -> Observation:
    """A row as a value."""
    values = {name: getattr(row, name) for name in _COLUMNS}
    return Observation(**values | {"as_of": moment(row.as_of), "created_at": moment(row.created_at)})


class SqlObservations:
    """The port `Observations`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, found: Sequence[Observation]) -> None:
        """Keep what a run found; what is kept of the same run, kind, model and version already stays as it is."""
        with self._database.write() as connection:
            for one in found:
                row = {name: getattr(one, name) for name in _COLUMNS}
                row |= {"id": str(ULID()), "as_of": micros(one.as_of), "created_at": micros(one.created_at)}
                row |= {"figures": dict(one.figures)}
                connection.execute(insert(connection, observation).values(row).on_conflict_do_nothing())

    def list(
        self, query: Query, *, model: str | None = None, kind: str | None = None, version: int | None = None
    ) -> Sequence[Observation]:
        """A page, newest recorded first."""
        conditions = [
            equals(observation.c.model, model),
            equals(observation.c.kind, kind),
            None if version is None else observation.c.version == version,
        ]
        return self._all(page(observation, query, observation.c.created_at, conditions))

    def history(self, kind: str, model: str, version: int | None, last: int) -> Sequence[Observation]:
        """The last of a model, oldest first."""
        wanted = select(observation).where(observation.c.model == model, observation.c.kind == kind)
        if version is not None:
            wanted = wanted.where(observation.c.version == version)
        newest = self._all(wanted.order_by(observation.c.as_of.desc(), observation.c.id.desc()).limit(last))
        return newest[::-1]

    def latest(self, kind: str, since: datetime, at_most: int, *, counted: int = 0) -> Sequence[Observation]:
        """The newest of each model recorded since then, at most so many models; of versions still in use.

        With `counted` only those in which so many rows were: of a kind whose figures have a coverage.

        A version that a promotion has replaced is left out, even when labels of its time come in later: an alert on
        it would ask for the retraining that has just been done. So is one that was never promoted, as a candidate
        that was refused, once the model has a log of promotions.
        """
        told = [observation.c.kind == kind, observation.c.created_at >= micros(since), not_(_replaced())]
        if counted:
            told.append(observation.c.rows * observation.c.figures["coverage"].as_float() >= counted)
        wanted = (
            select(observation.c.model, func.max(observation.c.as_of).label("as_of"))
            .where(*told)
            .group_by(observation.c.model)
            .order_by(func.max(observation.c.as_of).desc(), observation.c.model)
            .limit(at_most)
            .subquery()
        )
        rows = (
            select(observation)
            .join(wanted, and_(observation.c.model == wanted.c.model, observation.c.as_of == wanted.c.as_of))
            .where(*told)
            .order_by(observation.c.version, observation.c.id)
        )
        return list({one.model: one for one in self._all(rows)}.values())

    def seen(self, since: datetime, at_most: int) -> Mapping[tuple[str, str], datetime]:
        """When something was last recorded, by model and kind; since then, of at most so many models."""
        at = func.max(observation.c.created_at)
        models = (
            select(observation.c.model)
            .where(observation.c.created_at >= micros(since))
            .group_by(observation.c.model)
            .order_by(at.desc(), observation.c.model)
            .limit(at_most)
        )
        wanted = select(observation.c.model, observation.c.kind, at).where(observation.c.model.in_(models))
        with self._database.read() as connection:
            found = connection.execute(wanted.group_by(observation.c.model, observation.c.kind))
            return {(model, kind): moment(newest) for model, kind, newest in found}

    def _all(self, wanted: Any) -> Sequence[Observation]:
        with self._database.read() as connection:
            return [record(row) for row in connection.execute(wanted)]


def _replaced() -> ColumnElement[bool]:
    """The model has an audit log of promotions, and by it no alias stands for the observed version.

    Unless files of a later moment than its replacement are scored with it: then somebody moved the alias back in
    MLflow itself, of which the log knows nothing.
    """
    logged, there, later = promotion.alias("logged"), promotion.alias("there"), promotion.alias("later")
    away, drift = promotion.alias("away"), observation.alias("drift")
    moved_on = exists().where(
        later.c.model == there.c.model,
        later.c.alias == there.c.alias,
        later.c.state == "done",
        later.c.ended_at > there.c.ended_at,
    )
    in_use = exists().where(
        there.c.model == observation.c.model,
        there.c.to_version == observation.c.version,
        there.c.state == "done",
        not_(moved_on),
    )
    replaced_at = (
        select(func.max(away.c.ended_at))
        .where(
            away.c.model == observation.c.model,
            away.c.from_version == observation.c.version,
            away.c.state == "done",
        )
        .scalar_subquery()
        .correlate(observation)
    )
    scored_since = exists().where(
        drift.c.kind == "drift",
        drift.c.model == observation.c.model,
        drift.c.version == observation.c.version,
        drift.c.as_of > replaced_at,
    )
    has_log = exists().where(logged.c.model == observation.c.model, logged.c.state == "done")
    return and_(has_log, not_(in_use), not_(scored_since))
