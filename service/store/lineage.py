"""The edges between things: what was read, what was made, what caused it. Walked in both directions.

A node is a URI: `s3://bucket/key`, `models:/name/version`, a repository's `…/commit/<sha>`, `feast:project/view`, or
one of ours: `event:<id>`, `run:<key>`, `alert:<fingerprint>@<start>`.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, select

from service.records import Edge
from service.store.database import Database, insert, micros
from service.store.tables import lineage_edge


def add(connection: Connection, edges: Sequence[Edge], now: datetime) -> None:
    """Add those that are not there yet."""
    for edge in edges:
        row = {
            "source": edge.source,
            "relation": edge.relation,
            "target": edge.target,
            "run_key": edge.run_key,
            "data": dict(edge.data),
            "at": micros(now),
        }
        connection.execute(insert(connection, lineage_edge).values(row).on_conflict_do_nothing())


def _edge(row: Row[Any]) -> Edge:
    return Edge(source=row.source, relation=row.relation, target=row.target, run_key=row.run_key, data=row.data)


class SqlLineage:
    """The port `Lineage`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, edges: Sequence[Edge], now: datetime) -> None:
        """Add edges of no run's record: what an event says of itself."""
        with self._database.write() as connection:
            add(connection, edges, now)

    def into(self, node: str) -> Sequence[Edge]:
        """The edges whose target it is: where it came from."""
        return self._all(lineage_edge.c.target == node)

    def out_of(self, node: str) -> Sequence[Edge]:
        """The edges whose source it is: what came of it."""
        return self._all(lineage_edge.c.source == node)

    def _all(self, condition: Any) -> Sequence[Edge]:
        with self._database.read() as connection:
            return [
                _edge(row)
                for row in connection.execute(select(lineage_edge).where(condition).order_by(lineage_edge.c.id))
            ]
