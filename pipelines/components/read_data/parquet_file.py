"""A Parquet file's requested rows: every one of its rows. Called by formats.py; knows no storage.

`line` is the row's number as if a header were line 1, so the first row is 2, as in a CSV file of the same rows. The
columns to keep keep their types. `user_id` is a column of whole numbers or of text.
"""

from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.components.read_data.columns import Asked, Rows, choose
from pipelines.components.read_data.ids import parse_ids
from pipelines.components.read_data.moments import cast_moments
from pipelines.errors import PipelineError
from pipelines.requested import KEY

ROWS = 200_000


def requested(stream: BinaryIO, asked: Asked, uri: str) -> Iterator[Rows]:
    """The requested rows, many at a time."""
    try:
        with pq.ParquetFile(stream) as file:
            chosen = choose(file.schema_arrow.names, asked, uri)
            names = [file.schema_arrow.names[place] for place in chosen.used]
            line = 2
            for batch in file.iter_batches(ROWS, columns=names):
                columns = {place: _plain(batch.column(name)) for place, name in zip(chosen.used, names, strict=True)}
                moment = chosen.moment
                moments = None if moment is None else cast_moments(columns[moment], chosen.names[moment], uri)
                lines = pa.array(np.arange(line, line + batch.num_rows, dtype=np.int64))
                yield chosen.rows(lines, _ids(columns[chosen.key], uri), moments, columns.__getitem__)
                line += batch.num_rows
    except (pa.ArrowException, OSError) as error:
        raise PipelineError(f"{uri} is no whole Parquet file: {type(error).__name__}; was it cut off?") from None


def _plain(column: pa.Array) -> pa.Array:
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def _ids(column: pa.Array, uri: str) -> pa.Array:
    if pa.types.is_uint64(column.type):
        return pc.cast(pc.if_else(pc.less(column, pa.scalar(2**63, pa.uint64())), column, None), pa.int64())
    if pa.types.is_integer(column.type):
        return pc.cast(column, pa.int64())
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        return parse_ids(pc.cast(column, pa.string()))
    raise PipelineError(
        f"{KEY} is {column.type} in {uri}; it must be whole numbers or text: an id that is a float may have lost digits"
    )
