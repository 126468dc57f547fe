"""The table of requested rows that read_data hands to retrieve_features: its columns, and how it is cut into shards.

Also what the later steps know of those columns' names, and how all of them write what only the next step reads.
Imports nothing but pyarrow.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.errors import PipelineError

LINE, KEY, STATUS = "line", "user_id", "status"
AS_OF = "(as_of)"  #: the moment of each row, where the file tells; timestamp[us, UTC], null where it is invalid
OUTPUT = (LINE, KEY, "Predicted_Income_Class", "probability", STATUS, AS_OF)  #: names that are not the file's to use
ALL = "*"  #: keep_columns: every other column of the file
GRID = 50_000  #: rows scored at once. Shards begin at multiples of it: a row's last digits depend on its batch (BLAS)
MOST_SHARDS = 40  #: a shard writes two reports, and of a run the service reads a hundred


def shard_numbers(rows: int, shards: int) -> list[int]:
    """1, 2, ... for that many shards, none of them smaller than GRID; [0] where all rows are one shard."""
    if not 1 <= shards <= MOST_SHARDS:
        raise PipelineError(f"shards is {shards}; it can be 1 to {MOST_SHARDS}")
    count = min(shards, -(-rows // GRID))
    return list(range(1, count + 1)) if count > 1 else [0]


def span(rows: int, shards: int, shard: int) -> tuple[int, int]:
    """The rows of a shard, from the first to the one after the last: contiguous, about the same number in each."""
    if not shard:
        return 0, rows
    pieces = -(-rows // GRID)
    count = min(shards, pieces)
    return pieces * (shard - 1) // count * GRID, min(pieces * shard // count * GRID, rows)


def rows_between(path: Path, start: int, stop: int) -> Iterator[pa.Table]:
    """The rows of a Parquet file from `start` until before `stop`; other row groups than theirs are not read."""
    with pq.ParquetFile(path) as file:
        position = 0
        for group in range(file.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            if position < stop and position + rows > start:
                first, last = max(start - position, 0), min(stop - position, rows)
                yield file.read_row_group(group).slice(first, last - first)
            position += rows


def between_steps(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    """A Parquet file for the next step, made to be written and read quickly: it is gone when the run is.

    A dictionary of what is hardly ever there twice, such as an id, is larger and takes longer; nobody asks for
    statistics.
    """
    words = [field.name for field in schema if pa.types.is_string(field.type)]
    return pq.ParquetWriter(path, schema, compression="lz4", use_dictionary=words, write_statistics=False)


def regrouped(tables: Iterable[pa.Table], rows: int) -> Iterator[pa.Table]:
    """The same rows in tables of exactly so many, but for the last; columns in one piece.

    What is made of them then does not depend on how the rows came.
    """
    waiting: list[pa.Table] = []
    held = 0
    for table in tables:
        waiting.append(table)
        held += table.num_rows
        while held >= rows:
            whole = pa.concat_tables(waiting)
            yield whole.slice(0, rows).combine_chunks()
            held -= rows
            waiting = [whole.slice(rows)]
    if held:
        yield pa.concat_tables(waiting).combine_chunks()
