"""Forgetting: a name is taken out of every row that names it, and a salted hash put in its place.

Fits the port `Forgetting`. Identity and transport keys stay, so that a redelivery is still known; an edge gets the
same hash wherever a node is named, so that lineage still leads from one to the next. The salt is one for the store.
"""

import hmac
import json
import re
import secrets
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote, quote_plus

from sqlalchemy import Column, Connection, Table, Text, and_, cast, or_, select, update

from service.ledger import Forgotten
from service.lifecycle import OPEN
from service.records import EventState, Handling, origin
from service.store import dead, events, retention
from service.store.database import Database, insert
from service.store.tables import (
    answer,
    decision,
    delivery,
    event,
    lineage_edge,
    observation,
    promotion,
    run,
    run_transition,
    salt,
)

TOKEN = "forgotten:"  # noqa: S105  # what a hash begins with
_SHORT = 3  #: characters: a shorter part of a name is everywhere
_PAGE = 500
#: Where a name may stand, by table: what a person or a pipeline wrote. Ids and keys are not among them.
_TEXTS: dict[Table, Sequence[Column[Any]]] = {
    event: (event.c.subject, event.c.data, event.c.detail),
    decision: (decision.c.lookups, decision.c.detail),
    run: (
        run.c.subject,
        run.c.params,
        run.c.reads,
        run.c.writes,
        run.c.document,
        run.c.outputs,
        run.c.detail,
        run.c.error,
        run.c.display_name,
        run.c.description,
    ),
    observation: (observation.c.subject,),
    promotion: (promotion.c.detail, promotion.c.figures),
}
_Change = Callable[[str], str]


class SqlForgetting:
    """The port `Forgetting`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def token(self, name: str) -> str:
        """What stands for a name that is forgotten: the same each time in this store, and in no other."""
        return _hashing(self._salt())(name)

    def _salt(self) -> bytes:
        new = {"name": "forget", "value": secrets.token_bytes(32)}
        with self._database.write() as connection:
            connection.execute(insert(connection, salt).values(new).on_conflict_do_nothing(index_elements=["name"]))
            return connection.scalar(select(salt.c.value).where(salt.c.name == "forget")) or b""

    def unfinished(self, name: str) -> Sequence[str]:
        """What is under way on it, for a person."""
        mine = select(event.c.id).where(event.c.subject == name)
        unread = and_(run.c.backend_id != "", run.c.recorded_at.is_(None))
        with self._database.read() as connection:
            waiting = connection.scalars(mine.where(event.c.state == EventState.ACCEPTED))
            found = [f"event {one} waits to be decided" for one in waiting]
            asked = or_(decision.c.due_at.is_not(None), decision.c.outcome == "wait")
            again = connection.scalars(select(decision.c.id).where(decision.c.event_id.in_(mine), asked))
            found += [f"decision {one} waits to be asked again" for one in again]
            going = select(run.c.run_key, run.c.state, run.c.event_id.in_(mine).label("own"), *_TEXTS[run]).where(
                or_(run.c.event_id.in_(mine), _names(run, name)), or_(run.c.state.in_(OPEN), unread)
            )
            names = _replacing({name: ""}, whole=True)
            for row in connection.execute(going):
                if row.own or any(_each(one, names) != one for one in row[3:]):
                    told = f"run {row.run_key} is {row.state}"
                    found.append(told if row.state in OPEN else f"{told}, and its reports are yet to be read")
            answers = select(answer.c.run_key).join(run, run.c.run_key == answer.c.run_key)
            untold = connection.scalars(answers.where(run.c.event_id.in_(mine), answer.c.due_at.is_not(None)))
            return found + [f"the code host is yet to be told of run {one}" for one in untold]

    def forget(self, name: str, done: Handling) -> Forgotten:
        """Take it out, in one transaction, and leave a row that says so under its hash."""
        hashed = _hashing(self._salt())
        known = {form: hashed(form) for form in _forms(name)}
        own, whole = _replacing(known), _replacing({name: known[name]}, whole=True)
        counted = Counter[str]()
        with self._database.write(alone="decide") as connection:
            _overwriting(connection)
            mine = list(connection.scalars(select(event.c.id).where(event.c.subject == name)))
            runs = connection.execute(select(run.c.run_key, run.c.report_uri).where(run.c.event_id.in_(mine))).all()
            keys = [row.run_key for row in runs]
            nodes = {name, *_origins(connection, mine), *_outputs(connection, keys)}
            counted["delivery"] = retention.empty(connection, _deliveries(connection, mine), done.at)
            _hide_places(connection, mine, hashed)
            _rename(connection, keys, known[name])
            for table, columns in _TEXTS.items():
                counted[table.name] += _rewrite(connection, table, columns, _of_mine(table, mine, keys), own)
                counted[table.name] += _rewrite(connection, table, columns, _names(table, name), whole)
            moves = run_transition.c.run_key.in_(keys)
            counted["run_transition"] = _rewrite(connection, run_transition, (run_transition.c.detail,), moves, own)
            counted["lineage_edge"] = _relink(connection, nodes, keys, own)
            changed = {table: count for table, count in counted.items() if count}
            if changed:
                dead.note(connection, replace(done, key=known[name]))
        self._let_go_of_pages()
        reports = sorted(row.report_uri for row in runs if row.report_uri)
        return Forgotten(token=known[name], rows=changed, reports=reports)

    def _let_go_of_pages(self) -> None:
        """SQLite's journal holds the pages as they were until it is moved into the file."""
        if self._database.url.startswith("sqlite"):
            raw = self._database.engine.raw_connection()
            try:
                raw.cursor().execute("pragma wal_checkpoint(truncate)")
            finally:
                raw.close()


def _overwriting(connection: Connection) -> None:
    """SQLite leaves what was deleted in the file until something else is written over it; not from here on."""
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("pragma secure_delete=on")


def _hashing(key: bytes) -> _Change:
    return lambda text: TOKEN + hmac.new(key, text.encode(), "sha256").hexdigest()[:24]


def _forms(name: str) -> Sequence[str]:
    """The name, and of a URI its path, the last part of that and its stem; each also as URLs write it."""
    forms = [name]
    _, is_uri, rest = name.partition("://")
    if is_uri and "/" in rest:
        path = PurePosixPath(rest.partition("/")[2])
        forms += [form for form in (str(path), path.name, path.stem) if len(form) >= _SHORT]
    quoted = [write(form) for form in forms for write in (quote_plus, quote, lambda text: quote(text, safe=""))]
    return sorted(dict.fromkeys(forms + quoted), key=len, reverse=True)


def _replacing(known: Mapping[str, str], *, whole: bool = False) -> _Change:
    """Each form by its hash, the longest first; never as a part of a word, or with `whole` of a longer name."""
    forms = "|".join(re.escape(form) for form in sorted(known, key=len, reverse=True))
    around = (r"(?<![\w./%+-])", r"(?![\w/%+-]|\.\w)") if whole else (r"(?<![^\W_])", r"(?![^\W_])")
    pattern = re.compile(f"{around[0]}(?:{forms}){around[1]}")
    return lambda text: pattern.sub(lambda found: known[found[0]], text)


def _each(value: Any, change: _Change) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {change(name): _each(item, change) for name, item in value.items()}
    return [_each(item, change) for item in value] if isinstance(value, list) else value


def _names(table: Table, name: str) -> Any:
    """Whether a row holds the name, as text or inside JSON; a first look, which may find too much."""
    inside = json.dumps(name)[1:-1]
    return or_(
        *(
            column.contains(name, autoescape=True)
            if isinstance(column.type, Text)
            else cast(column, Text).contains(inside, autoescape=True)
            for column in _TEXTS[table]
        )
    )


def _of_mine(table: Table, mine: Sequence[str], keys: Sequence[str]) -> Any:
    if table is event:
        return event.c.id.in_(mine)
    return table.c.run_key.in_(keys) if table in (observation, promotion) else table.c.event_id.in_(mine)


def _rewrite(connection: Connection, table: Table, columns: Sequence[Column[Any]], where: Any, change: _Change) -> int:
    """The rows that were changed."""
    count = 0
    for row in connection.execute(select(table.c.id, *columns).where(where)).all():
        before = {column.name: getattr(row, column.name) for column in columns}
        after = {column: new for column, old in before.items() if (new := _each(old, change)) != old}
        if after:
            count += connection.execute(update(table).where(table.c.id == row.id).values(**after)).rowcount
    return count


def _rename(connection: Connection, keys: Sequence[str], token: str) -> None:
    """The names that runs are shown by: cut to size, they may hold a part of the name that is no form of it."""
    for row in connection.execute(select(run.c.run_key, run.c.rule).where(run.c.run_key.in_(keys))).all():
        shown = {"display_name": f"{row.rule} · {token} · {row.run_key}", "description": token}
        connection.execute(update(run).where(run.c.run_key == row.run_key).values(**shown))


def _hide_places(connection: Connection, mine: Sequence[str], hashed: _Change) -> None:
    """Of an object all parts of its path, however short, and what its uploader wrote beside it."""
    for row in connection.execute(select(event.c.id, event.c.data).where(event.c.id.in_(mine))).all():
        data = dict(row.data)
        for part in ("key", "dir", "name", "stem"):
            if isinstance(text := data.get(part), str) and text and not text.startswith(TOKEN) and "object" in data:
                data[part] = hashed(text)
        data |= {"metadata": {}} if "metadata" in data else {}
        connection.execute(update(event).where(event.c.id == row.id).values(data=data))


def _origins(connection: Connection, mine: Sequence[str]) -> set[str]:
    rows = connection.execute(select(event).where(event.c.id.in_(mine))).all()
    return {node for row in rows if (node := origin(events.record(row).event))}


def _outputs(connection: Connection, keys: Sequence[str]) -> set[str]:
    """What its runs wrote: their names are often made of the name."""
    written = lineage_edge.c.source.in_([f"run:{key}" for key in keys])
    return set(connection.scalars(select(lineage_edge.c.target).where(written)))


def _relink(connection: Connection, nodes: set[str], keys: Sequence[str], change: _Change) -> int:
    """Every edge at these nodes, whoever's it is; of its own runs the facts on them, too."""
    count = 0
    about = or_(lineage_edge.c.source.in_(nodes), lineage_edge.c.target.in_(nodes), lineage_edge.c.run_key.in_(keys))
    for row in connection.execute(select(lineage_edge).where(about)).all():
        ends = {side: change(node) for side in ("source", "target") if (node := getattr(row, side)) in nodes}
        facts = {"data": _each(row.data, change)} if row.run_key in keys else {}
        values = {name: new for name, new in (ends | facts).items() if new != getattr(row, name)}
        if values:
            count += connection.execute(
                update(lineage_edge).where(lineage_edge.c.id == row.id).values(**values)
            ).rowcount
    return count


def _deliveries(connection: Connection, mine: Sequence[str]) -> Sequence[str]:
    """Every delivery that told of these events; a repeat makes no event, but its delivery is kept."""
    wanted = select(delivery.c.id, delivery.c.event_ids).order_by(delivery.c.id)
    sources = select(event.c.source).where(event.c.id.in_(mine))
    first = connection.scalar(select(event.c.delivery_id).where(event.c.id.in_(mine)).order_by(event.c.delivery_id))
    found: list[str] = []
    ids, after, page = set(mine), "", wanted.where(delivery.c.source.in_(sources)).limit(_PAGE)
    if first is None:
        return found
    while rows := connection.execute(page.where(delivery.c.id >= first, delivery.c.id > after)).all():
        found += [row.id for row in rows if ids.intersection(row.event_ids)]
        after = rows[-1].id
    return found
