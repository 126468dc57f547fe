"""One page of a listing, newest first: the same filters for every table with an id that sorts by time.

A filter on what stands in another table (a run's source, an event's rule) is a condition of the caller's.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Column, ColumnElement, Select, Table, select

from service.records import Query
from service.store.database import micros


def page(table: Table, query: Query, at: Column[int], conditions: Sequence[ColumnElement[bool] | None]) -> Select[Any]:
    """Select the page; `at` is the time that `since` and `until` are about."""
    wanted = select(table).order_by(table.c.id.desc()).limit(query.limit)
    wanted = wanted.where(*(condition for condition in conditions if condition is not None))
    if query.since:
        wanted = wanted.where(at >= micros(query.since))
    if query.until:
        wanted = wanted.where(at < micros(query.until))
    return wanted.where(table.c.id < query.cursor) if query.cursor else wanted


def equals(column: Any, value: str | None) -> ColumnElement[bool] | None:
    """A condition, or none where nothing is asked."""
    return None if value is None else column == value


def among(column: Any, other: Any, condition: ColumnElement[bool] | None) -> ColumnElement[bool] | None:
    """The column's value stands in another table's column, in a row that meets the condition."""
    return None if condition is None else column.in_(select(other).where(condition))
