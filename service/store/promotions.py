"""Moves of aliases: the audit log, and the one row a time that may be moving an alias.

MLflow sets an alias without looking at what it was, so the comparing is ours: whoever wants to move one holds the row
that is `moving` (unique for a model's alias) while it reads, compares and sets. Called by `service.flow.promote`.
"""

from collections.abc import Sequence
from dataclasses import fields
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, and_, func, select, update
from sqlalchemy.exc import IntegrityError

from service.errors import Temporary
from service.ledger import Claim
from service.records import Edge, Promotion, PromotionState, Query
from service.store import lineage
from service.store.database import Database, insert, maybe_moment, micros, moment
from service.store.paging import among, equals, page
from service.store.tables import promotion, run
from triggers.reason import Reason

SKEW = timedelta(minutes=1)  #: that the registry's clock may be away from ours
SLOW = timedelta(minutes=10)  #: a move that began before this is stuck, however often it is tried: told to a person

_COLUMNS = [item.name for item in fields(Promotion)]


def record(row: Row[Any]) -> Promotion:
    """A row as a value."""
    values = {name: getattr(row, name) for name in _COLUMNS}
    values |= {"state": PromotionState(row.state), "reason": Reason(row.reason)}
    return Promotion(**values | {"created_at": moment(row.created_at), "ended_at": maybe_moment(row.ended_at)})


def _values(item: Promotion) -> dict[str, Any]:
    values = {name: getattr(item, name) for name in _COLUMNS}
    ended_at = None if item.ended_at is None else micros(item.ended_at)
    return values | {"figures": dict(item.figures), "created_at": micros(item.created_at), "ended_at": ended_at}


def _held(taken: Claim) -> dict[str, Any]:
    return {"holder": taken.holder, "lease_until": micros(taken.until)}


class SqlPromotions:
    """The port `Promotions`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, item: Promotion, taken: Claim, edges: Sequence[Edge] = ()) -> Promotion | None:
        """Write it, held by the claim if it is moving; as lost while another one moves the alias.

        None when it is known: a run has one verdict on an alias, however often it is recorded.
        """
        held = _held(taken) if item.state is PromotionState.MOVING else {}
        with self._database.write(alone="promote") as connection:
            if _is_known(connection, item):
                return None
            if not _insert(connection, _values(item) | held):
                other = _moving(connection, item)
                late = held if other is None else _too_late(other, taken.now)
                if not _insert(connection, _values(item) | late):
                    raise Temporary("another process writes the same promotion", delay=1.0)
            lineage.add(connection, edges, taken.now)
            return _get(connection, item.id)

    def approve(self, promotion_id: str, by: str, detail: str, taken: Claim) -> Promotion | None:
        """Begin the move that was asked about; None when another one moves the alias, or nobody asks any more."""
        said: dict[str, Any] = {"state": PromotionState.MOVING, "reason": Reason.APPROVED, "by": by, "detail": detail}
        said["created_at"] = micros(taken.now)  # the move begins now; its id keeps when the question was asked
        asked = (promotion.c.id == promotion_id, promotion.c.state == PromotionState.ASKED)
        try:
            with self._database.write() as connection:
                if connection.execute(update(promotion).where(*asked).values(**said | _held(taken))).rowcount:
                    return _get(connection, promotion_id)
        except IntegrityError:  # the index on what is moving
            return None
        return None

    def take(self, promotion_id: str, taken: Claim) -> Promotion | None:
        """Take over a move whose holder is gone, or that was put off until now."""
        left = (
            promotion.c.id == promotion_id,
            promotion.c.state == PromotionState.MOVING,
            promotion.c.lease_until < micros(taken.now),
        )
        with self._database.write() as connection:
            changed = connection.execute(update(promotion).where(*left).values(**_held(taken)))
            return _get(connection, promotion_id) if changed.rowcount else None

    def put_off(self, promotion_id: str, holder: str, until: datetime) -> None:
        """Let go of a move that cannot be made now; it stays the one that moves the alias."""
        with self._database.write() as connection:
            connection.execute(
                update(promotion)
                .where(promotion.c.id == promotion_id, promotion.c.holder == holder)
                .values(holder="", lease_until=micros(until))
            )

    def end(self, item: Promotion, edges: Sequence[Edge], *, before: str, holder: str | None = None) -> bool:
        """Write how it ended, in one step with its lineage; False when somebody else did."""
        still = [promotion.c.id == item.id, promotion.c.state == before]
        if holder is not None:
            still.append(promotion.c.holder == holder)
        with self._database.write() as connection:
            values = _values(item) | {"holder": "", "lease_until": 0}
            if not connection.execute(update(promotion).where(*still).values(**values)).rowcount:
                return False
            lineage.add(connection, edges, item.ended_at or item.created_at)
            return True

    def due(self, now: datetime, limit: int) -> Sequence[str]:
        """Moves that nobody makes just now."""
        left = (promotion.c.state == PromotionState.MOVING, promotion.c.lease_until < micros(now))
        with self._database.read() as connection:
            return connection.scalars(select(promotion.c.id).where(*left).limit(limit)).all()

    def get(self, promotion_id: str) -> Promotion | None:
        """The one with this id."""
        with self._database.read() as connection:
            return _get(connection, promotion_id)

    def told_of(self, model: str, alias: str, version: int, at: datetime) -> Promotion | None:
        """The move of ours that the registry tells of: to this version, and under way at that time, by its clock."""
        under_way = (
            promotion.c.state.in_([PromotionState.MOVING, PromotionState.DONE]),
            promotion.c.reason != Reason.MOVED_OUTSIDE,
            promotion.c.created_at <= micros(at + SKEW),
            func.coalesce(promotion.c.ended_at, micros(at)) >= micros(at - SKEW),
        )
        wanted = select(promotion).where(*_of(model, alias), promotion.c.to_version == version, *under_way)
        found = self._all(wanted.order_by(promotion.c.id.desc()).limit(1))
        return found[0] if found else None

    def done(self, model: str, alias: str) -> Sequence[Promotion]:
        """Every move of the alias that was made, the last one first."""
        made = select(promotion).where(*_of(model, alias), promotion.c.state == PromotionState.DONE)
        return self._all(made.order_by(promotion.c.ended_at.desc(), promotion.c.id.desc()))

    def of_run(self, run_key: str) -> Sequence[Promotion]:
        """What a run's verdicts came to, oldest first."""
        return self._all(select(promotion).where(promotion.c.run_key == run_key).order_by(promotion.c.id))

    def list(self, query: Query, model: str | None = None) -> Sequence[Promotion]:
        """A page, newest first; `rule` and `source` are those of the runs whose verdicts they are."""
        conditions = [
            equals(promotion.c.state, query.state),
            equals(promotion.c.model, model),
            among(promotion.c.run_key, run.c.run_key, equals(run.c.rule, query.rule)),
        ]
        return self._all(page(promotion, query, promotion.c.created_at, conditions))

    def _all(self, wanted: Any) -> Sequence[Promotion]:
        with self._database.read() as connection:
            return [record(row) for row in connection.execute(wanted)]


def _of(model: str, alias: str) -> tuple[Any, Any]:
    return promotion.c.model == model, promotion.c.alias == alias


def _get(connection: Connection, promotion_id: str) -> Promotion | None:
    row = connection.execute(select(promotion).where(promotion.c.id == promotion_id)).one_or_none()
    return record(row) if row else None


def _insert(connection: Connection, values: dict[str, Any]) -> bool:
    return bool(connection.execute(insert(connection, promotion).values(values).on_conflict_do_nothing()).rowcount)


def _is_known(connection: Connection, item: Promotion) -> bool:
    same = promotion.c.id == item.id
    if item.run_key:
        same |= and_(*_of(item.model, item.alias), promotion.c.run_key == item.run_key)
    return connection.execute(select(promotion.c.id).where(same).limit(1)).first() is not None


def _moving(connection: Connection, item: Promotion) -> Promotion | None:
    moving = (*_of(item.model, item.alias), promotion.c.state == PromotionState.MOVING)
    row = connection.execute(select(promotion).where(*moving)).one_or_none()
    return record(row) if row else None


def _too_late(other: Promotion, now: datetime) -> dict[str, Any]:
    detail = f"another move of {other.model}@{other.alias} is under way, to {other.to_version} (promotion {other.id})"
    return {
        "state": PromotionState.LOST,
        "reason": Reason.MOVE_UNDER_WAY,
        "detail": detail,
        "ended_at": micros(now),
    }
