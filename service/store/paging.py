"""One page of a listing, newest first: the same filters for every table with an id that sorts by time."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Column, Select, Table, select

from service.records import Query
from service.store.database import micros


def page(table: Table, query: Query, at: Column[int], equal: Mapping[Any, str | None]) -> Select[Any]:
    """Select the page; `at` is the time that `since` and `until` are about, `equal` the wanted value by column."""
    wanted = select(table).order_by(table.c.id.desc()).limit(query.limit)
    for column, value in equal.items():
        if value is not None:
            wanted = wanted.where(column == value)
    if query.since:
        wanted = wanted.where(at >= micros(query.since))
    if query.until:
        wanted = wanted.where(at < micros(query.until))
    return wanted.where(table.c.id < query.cursor) if query.cursor else wanted
