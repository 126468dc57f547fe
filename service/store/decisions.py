"""Decisions, and the one transaction that turns an event into them.

`settle` reads the history that limits depend on, lets the caller judge on it, and writes decisions, runs and declared
lineage while nobody else settles: two events can never both see the same lock free.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, func, insert, select, update
from ulid import ULID

from service.ledger import Ask, Claim, Judged
from service.lifecycle import OPEN, State
from service.records import DecisionRecord, Edge, EventRecord, EventState, Query, RunRecord, origin
from service.store import answers, claims, episodes, events, lineage, runs
from service.store.database import Database, maybe_moment, micros, moment
from service.store.paging import among, equals, page
from service.store.tables import decision, event, run
from triggers.reason import Reason
from triggers.rules.gate import History

_GIVEN_UP = 20  #: decisions of each rule that are looked at, the latest


def record(row: Row[Any]) -> DecisionRecord:
    """A row as a value."""
    return DecisionRecord(
        id=row.id,
        event_id=row.event_id,
        rule=row.rule,
        generation=row.generation,
        outcome=row.outcome,
        reason=row.reason,
        detail=row.detail,
        rule_hash=row.rule_hash,
        rule_set=row.rule_set,
        lookups=row.lookups,
        run_key=row.run_key,
        created_at=moment(row.created_at),
        decided_at=moment(row.decided_at),
        due_at=maybe_moment(row.due_at),
    )


class SqlDecisions:
    """The port `Decisions`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def settle(self, item: EventRecord, asks: Sequence[Ask], *, holder: str, now: datetime) -> Sequence[Judged] | None:
        """Judge every matching rule of an event and write it all; None when the claim was lost meanwhile."""
        with self._database.write(alone="decide") as connection:
            if not claims.still_held(connection, event, item.id, holder):
                return None
            judged = [self._first(connection, item, ask, now) for ask in asks]
            state = EventState.DECIDED if asks else EventState.UNMATCHED
            reason = "" if asks else Reason.NO_RULE
            connection.execute(
                update(event).where(event.c.id == item.id).values(state=state, reason=reason, **claims.let_go(None))
            )
            return judged

    def settle_again(
        self, decided: DecisionRecord, item: EventRecord, ask: Ask, *, holder: str, now: datetime
    ) -> Judged | None:
        """Judge a waiting decision once more; None when the claim was lost meanwhile."""
        with self._database.write(alone="decide") as connection:
            if not claims.still_held(connection, decision, decided.id, holder):
                return None
            judged = ask.judge(_history(connection, item, ask))
            values = _columns(judged, now) | claims.let_go(judged.ask_again_at) | {"attempts": 0}
            connection.execute(update(decision).where(decision.c.id == decided.id).values(**values))
            _add_run(connection, item, judged, decided.id, now)
            return judged

    def _first(self, connection: Connection, item: EventRecord, ask: Ask, now: datetime) -> Judged:
        judged = ask.judge(_history(connection, item, ask))
        decision_id = str(ULID())
        connection.execute(
            insert(decision).values(
                id=decision_id,
                event_id=item.id,
                rule=ask.rule,
                generation=0,
                created_at=micros(now),
                **_columns(judged, now),
                **claims.let_go(judged.ask_again_at),
            )
        )
        _add_run(connection, item, judged, decision_id, now)
        return judged

    def again(self, item: RunRecord, now: datetime) -> DecisionRecord:
        """A decision for the next generation of an ended run, due now; the one that is there if it was asked twice.

        One that came to nothing, as when a lookup failed, is asked once more.
        """
        same = (decision.c.event_id == item.event_id, decision.c.rule == item.rule)
        wanted = select(decision).where(*same, decision.c.generation == item.generation + 1)
        with self._database.write(alone="decide") as connection:
            if (row := connection.execute(wanted).one_or_none()) is None:
                connection.execute(
                    insert(decision).values(
                        id=str(ULID()),
                        event_id=item.event_id,
                        rule=item.rule,
                        generation=item.generation + 1,
                        outcome="wait",
                        reason=Reason.REPLAYED,
                        detail=Reason.REPLAYED.text,
                        lookups={},
                        created_at=micros(now),
                        decided_at=micros(now),
                        **claims.let_go(now),
                    )
                )
                row = connection.execute(wanted).one()
            elif not row.run_key and row.due_at is None:
                waits = {"outcome": "wait", "reason": Reason.REPLAYED, "detail": Reason.REPLAYED.text}
                connection.execute(
                    update(decision).where(decision.c.id == row.id).values(**waits, **claims.let_go(now))
                )
            return record(row)

    def repeated(self, decision_id: str, *, holder: str) -> None:
        """Its alert was told again, or is over: the decision is not looked at any more."""
        with self._database.write() as connection:
            if claims.still_held(connection, decision, decision_id, holder):
                connection.execute(update(decision).where(decision.c.id == decision_id).values(**claims.let_go(None)))

    def given_up(self) -> Mapping[str, datetime]:
        """The rules whose tries did not end an alert that still fires, with when that was said first.

        Asked at every scrape: of each rule only the latest are looked at, the oldest first, until one still fires.
        """
        place = func.row_number().over(partition_by=decision.c.rule, order_by=decision.c.id.desc()).label("place")
        ranked = select(decision.c.id, place).where(decision.c.reason == Reason.TRIES_EXHAUSTED).subquery()
        wanted = (
            select(event, decision.c.rule, decision.c.decided_at)
            .join(decision, decision.c.event_id == event.c.id)
            .join(ranked, ranked.c.id == decision.c.id)
            .where(ranked.c.place <= _GIVEN_UP)
            .order_by(decision.c.id)
        )
        found: dict[str, datetime] = {}
        with self._database.read() as connection:
            for row in connection.execute(wanted).all():
                if row.rule not in found and not episodes.resolved(connection, events.record(row)):
                    found[row.rule] = moment(row.decided_at)
        return found

    def claim(self, decision_id: str, taken: Claim) -> DecisionRecord | None:
        """The waiting decision if it is due and now ours to ask again, else None."""
        return self.get(decision_id) if claims.claim(self._database, decision, decision_id, taken) else None

    def due(self, now: datetime, limit: int) -> Sequence[str]:
        """Ids of decisions that wait and are to be asked again."""
        return claims.due(self._database, decision, now, limit)

    def get(self, decision_id: str) -> DecisionRecord | None:
        """The decision with this id."""
        found = self._all(select(decision).where(decision.c.id == decision_id))
        return found[0] if found else None

    def of_event(self, event_id: str) -> Sequence[DecisionRecord]:
        """Every decision on an event."""
        return self._all(select(decision).where(decision.c.event_id == event_id).order_by(decision.c.id))

    def list(self, query: Query) -> Sequence[DecisionRecord]:
        """A page, newest first; `state` is the outcome."""
        conditions = [
            equals(decision.c.rule, query.rule),
            equals(decision.c.outcome, query.state),
            among(decision.c.event_id, event.c.id, equals(event.c.source, query.source)),
        ]
        return self._all(page(decision, query, decision.c.created_at, conditions))

    def _all(self, wanted: Any) -> Sequence[DecisionRecord]:
        with self._database.read() as connection:
            return [record(row) for row in connection.execute(wanted)]


def _add_run(connection: Connection, item: EventRecord, judged: Judged, decision_id: str, now: datetime) -> None:
    if judged.run is None:
        return
    if judged.package is not None:
        runs.keep(connection, judged.run.package, judged.package, now)
    runs.add(connection, judged.run, decision_id, now)
    if judged.answer is not None:
        answers.add(connection, judged.answer, now)
    if thing := origin(item.event):
        told = Edge(source=thing, relation="told of by", target=f"event:{item.id}", data={"type": item.event.type})
        lineage.add(connection, [told], now)


def _columns(judged: Judged, now: datetime) -> dict[str, Any]:
    return {
        "outcome": judged.outcome,
        "reason": judged.reason,
        "detail": judged.detail,
        "rule_hash": judged.rule_hash,
        "rule_set": judged.rule_set,
        "lookups": dict(judged.lookups),
        "run_key": judged.run.run_key if judged.run else "",
        "decided_at": micros(now),
    }


def _latest(connection: Connection, rule: str, count: int) -> tuple[datetime, ...]:
    """When the rule made its latest runs, those that a person asked for too."""
    wanted = select(run.c.created_at).where(run.c.rule == rule).order_by(run.c.created_at.desc())
    return tuple(moment(at) for at in connection.scalars(wanted.limit(count))) if count else ()


def _history(connection: Connection, item: EventRecord, ask: Ask) -> History:
    """What is under way is read before what has ended: a run that ends in between is seen in one of them."""
    busy = 0
    if ask.lock:
        busy = (
            connection.scalar(
                select(func.count()).select_from(run).where(run.c.lock == ask.lock, run.c.state.in_(OPEN))
            )
            or 0
        )
    of_rule = select(func.max(run.c.created_at)).where(run.c.rule == ask.rule)
    last_run = connection.scalar(of_rule)
    last_success = connection.scalar(of_rule.where(run.c.state == State.SUCCEEDED))
    tried = episodes.tries(connection, ask) if ask.tries else ()
    return History(
        last_run_at=maybe_moment(last_run),
        last_success=maybe_moment(last_success),
        busy=busy,
        resolved=episodes.resolved(connection, item),
        causes=tuple(ask.causes),
        runs=_latest(connection, ask.rule, ask.budget),
        tries=tuple(moment(one.created_at) for one in tried),
        episodes=episodes.episodes(connection, item, {one.subject for one in tried}) if tried else (),
    )
