"""The labels of a window, read from one Parquet object or from all of them below a prefix. Called by training_set.py.

What is kept in memory is bounded by the window and by `newest`, whatever lies in the bucket: an object is read in
chunks, row groups outside of the window not at all, and labels that are no longer among the newest go again at once.
"""

import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.components.prepare_data.window import Window
from pipelines.errors import PipelineError
from pipelines.report import Dataset, stored_object
from pipelines.storage import download, objects_below, parse_s3

KEY, TIME, LABEL = "user_id", "event_timestamp", "income"
CLASSES = ("<=50K", ">50K")
CHUNK = 500_000  # rows that are looked at together
TYPES = {KEY: pa.int64(), TIME: pa.timestamp("us", tz="UTC"), LABEL: pa.string()}


def read_labels(uri: str, chosen: Window, *, whole: bool = False) -> tuple[pa.Table, list[Dataset]]:
    """The labels that count, oldest first, and the exact objects that were read, whether or not a label was in them.

    A `uri` that ends in a slash is a prefix: its `.parquet` objects, by name. Of two labels of one user at one moment
    the later one counts: of a later object, or further down. `whole` reads the other columns too. A label without a
    class, or with another one, is an error and not a lost row.
    """
    refs = objects_below(uri, ".parquet") if uri.endswith("/") else [parse_s3(uri)]
    if not refs:
        raise PipelineError(f"there is no .parquet object below {uri}: there is nothing to train on")
    kept: list[pa.Table] = []
    read = []
    for ref in refs:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "labels.parquet")
            stored = download(ref, path)
            rows = 0
            for part in _parts(path, ref.uri, chosen, whole):
                rows += part.num_rows
                kept.append(_alike(part, kept[0].schema, ref.uri) if kept else part)
                if chosen.newest and sum(table.num_rows for table in kept) >= chosen.newest + CHUNK:
                    kept = [_newest(pa.concat_tables(kept), chosen.newest)]
        read.append(stored_object(ref, stored, rows))
    if not kept:
        raise PipelineError(f"{uri} has no labels {chosen.told}: there is nothing to train on")
    return _newest(pa.concat_tables(kept), chosen.newest), read


def _parts(path: Path, uri: str, chosen: Window, whole: bool) -> Iterator[pa.Table]:
    """The object's rows inside of the window, checked, a chunk at a time."""
    try:
        file = pq.ParquetFile(path)
    except pa.ArrowInvalid:
        raise PipelineError(f"{uri} must be Parquet with the columns {', '.join(TYPES)}") from None
    with file:
        schema = file.schema_arrow
        columns = schema.names if whole else list(TYPES)
        if twice := sorted({name for name in columns if schema.names.count(name) > 1}):
            raise PipelineError(f"{uri} has several columns called {', '.join(twice)}; keep one of each")
        _checked(schema, uri)
        groups = [number for number in range(file.num_row_groups) if _may_hold(file.metadata.row_group(number), chosen)]
        for batch in file.iter_batches(CHUNK, row_groups=groups, columns=columns):
            table = pa.Table.from_batches([batch]).select(columns)
            part = _inside(_typed(table, uri), chosen, uri)
            if part.num_rows:
                yield _classes_checked(part, uri)


def _checked(schema: pa.Schema, uri: str) -> None:
    if missing := [name for name in TYPES if name not in schema.names]:
        raise PipelineError(f"{uri} has no column {', '.join(missing)}")
    if not pa.types.is_integer(schema.field(KEY).type) or not pa.types.is_timestamp(schema.field(TIME).type):
        raise PipelineError(f"{uri}: {KEY} must be an integer and {TIME} a timestamp")


def _typed(table: pa.Table, uri: str) -> pa.Table:
    """64-bit ids, and moments in UTC whatever their unit;

    a moment without a zone is taken for UTC, as Feast takes it.
    """
    for name, type_ in TYPES.items():
        options = pc.CastOptions(type_, allow_time_truncate=True)
        try:
            column = pc.cast(table.column(name), options=options)
        except pa.ArrowInvalid:  # its text quotes the value
            what = "ids" if name == KEY else "values"
            raise PipelineError(f"{uri}: {name} has {what} that do not fit {type_}") from None
        except pa.ArrowException:
            raise PipelineError(f"{uri}: {name} is {table.column(name).type}, which is no {type_}") from None
        table = table.set_column(table.column_names.index(name), name, column)
    return table.replace_schema_metadata(None)


def _inside(table: pa.Table, chosen: Window, uri: str) -> pa.Table:
    """The window's rows. One without a moment may be of any window, and a comparison would just lose it."""
    if timeless := table.column(TIME).null_count:
        raise PipelineError(f"{uri}: {timeless} labels have no {TIME}")
    inside = pc.less_equal(table.column(TIME), _moment(chosen.as_of))
    if chosen.since:
        inside = pc.and_(inside, pc.greater(table.column(TIME), _moment(chosen.since)))
    return table.filter(inside)


def _classes_checked(rows: pa.Table, uri: str) -> pa.Table:
    """Other classes are counted and not named: what stands there may be a person's income."""
    if nothing := rows.column(LABEL).null_count:
        raise PipelineError(f"{uri}: {nothing} labels have no {LABEL}")
    if others := set(pc.unique(rows.column(LABEL)).to_pylist()) - set(CLASSES):
        raise PipelineError(f"{uri}: {LABEL} must be {' or '.join(CLASSES)}; found also {len(others)} other values")
    if rows.column(KEY).null_count:
        raise PipelineError(f"{uri}: {rows.column(KEY).null_count} labels have no {KEY}")
    return rows


def _alike(part: pa.Table, schema: pa.Schema, uri: str) -> pa.Table:
    """The part with its columns in the order of the parts before it; it must have the same ones."""
    if set(part.column_names) == set(schema.names):
        part = part.select(schema.names)
    if part.schema != schema:
        raise PipelineError(f"{uri} has other columns, or other types, than the objects before it")
    return part


def _newest(rows: pa.Table, newest: int) -> pa.Table:
    """One row a user and moment, the last one given; of these the newest, oldest first."""
    given = rows.select([TIME, KEY]).append_column("given", pa.array(np.arange(rows.num_rows)))
    order = rows.take(pc.sort_indices(given, [(name, "ascending") for name in given.column_names]))
    times, keys = order.column(TIME).cast(pa.int64()).to_numpy(), order.column(KEY).to_numpy()
    last = np.append((times[1:] != times[:-1]) | (keys[1:] != keys[:-1]), True)
    kept = order.filter(pa.array(last))
    return kept.slice(max(kept.num_rows - newest, 0) if newest else 0).combine_chunks()


def _may_hold(group: Any, chosen: Window) -> bool:
    """Whether a row group can have rows of the window, or without a moment, as far as its own statistics tell."""
    columns = [group.column(number) for number in range(group.num_columns)]
    found = next((one.statistics for one in columns if one.path_in_schema == TIME), None)
    if found is None or not found.has_min_max or not isinstance(found.min, datetime):
        return True
    if not found.has_null_count or found.null_count:
        return True
    oldest, newest = (moment.replace(tzinfo=moment.tzinfo or UTC) for moment in (found.min, found.max))
    return oldest <= chosen.as_of and (not chosen.since or newest > chosen.since)


def _moment(moment: datetime) -> pa.Scalar:
    return pa.scalar(moment, TYPES[TIME])
