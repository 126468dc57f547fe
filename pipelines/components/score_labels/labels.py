"""A file of labels as arrays, sorted for the look-up. Called by score.py.

Parquet (recognised by its first bytes) or CSV, gzip or plain, with `user_id`, `event_timestamp` (the moment that the
label is true of) and `income`. Read in chunks; what stays is 17 bytes a label.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from pipelines.errors import PipelineError
from pipelines.storage import ObjectRef, Stored, download

KEY, TIME, LABEL = "user_id", "event_timestamp", "income"
LOW, HIGH = "<=50K", ">50K"
TYPES = {KEY: pa.int64(), TIME: pa.timestamp("us", tz="UTC"), LABEL: pa.string()}
CHUNK = 500_000  # rows


@dataclass(frozen=True)
class Labels:
    """One label a user and moment, sorted by both."""

    user: np.ndarray  #: int64
    time: np.ndarray  #: int64, microseconds since 1970 in UTC
    high: np.ndarray  #: bool: the class is >50K
    rows: int  #: that the file has
    future: int  #: of them, later than the moment that was asked for

    def __len__(self) -> int:
        return len(self.user)


def read_labels(ref: ObjectRef, as_of: datetime) -> tuple[Labels, Stored]:
    """The labels up to a moment, and which object they are.

    Of two labels of one user at one moment the one further down counts: it corrects the other.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, Path(ref.key).name or "labels")
        stored = download(ref, path)
        columns: list[tuple[np.ndarray, ...]] = [(np.array([], np.int64), np.array([], np.int64), np.array([], bool))]
        try:
            columns += [_columns(chunk, ref.uri) for chunk in _chunks(path, ref.uri)]
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError, EOFError) as error:
            # Arrow's own words quote the value that it stumbled over.
            raise PipelineError(
                f"{ref.uri} cannot be read as labels: {KEY} must be an integer, {TIME} a time such as "
                f"2026-11-21T08:30:00Z, {LABEL} a word; the file must be whole, Parquet or CSV"
            ) from error
    user, time, high = (np.concatenate(parts) for parts in zip(*columns, strict=True))
    known = time <= np.datetime64(as_of.replace(tzinfo=None), "us").astype(np.int64)
    order = np.lexsort((np.arange(known.sum()), time[known], user[known]))
    user, time, high = user[known][order], time[known][order], high[known][order]
    last = np.ones(len(user), bool)
    last[:-1] = (user[1:] != user[:-1]) | (time[1:] != time[:-1])
    return Labels(user[last], time[last], high[last], len(known), int((~known).sum())), stored


def _chunks(path: Path, uri: str) -> Iterator[pa.RecordBatch]:
    with path.open("rb") as file:
        parquet = file.read(4) == b"PAR1"
    if parquet:
        with pq.ParquetFile(path) as whole:
            _check(whole.schema_arrow.names, uri)
            yield from whole.iter_batches(CHUNK, columns=list(TYPES))
        return
    with pa.input_stream(path, compression="gzip" if _is_gzip(path) else None) as stream:
        options = pa_csv.ConvertOptions(column_types=TYPES, include_columns=list(TYPES), strings_can_be_null=True)
        try:
            with pa_csv.open_csv(stream, convert_options=options) as whole:
                yield from whole
        except KeyError as error:  # Arrow's own, for include_columns
            raise PipelineError(f"{uri} must have the columns {', '.join(TYPES)}, separated by commas") from error


def _is_gzip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


def _check(names: list[str], uri: str) -> None:
    if missing := [name for name in TYPES if name not in names]:
        raise PipelineError(f"{uri} has no column {', '.join(missing)}; labels are {', '.join(TYPES)}")


def _columns(chunk: pa.RecordBatch, uri: str) -> tuple[np.ndarray, ...]:
    """A moment without a zone is taken for UTC, as Feast takes it."""
    if not pa.types.is_timestamp(chunk.column(TIME).type):
        raise PipelineError(f"{uri}: {TIME} must be a timestamp, not {chunk.column(TIME).type}")
    table = pa.Table.from_batches([chunk]).select(list(TYPES)).cast(pa.schema(list(TYPES.items())))
    if empty := [name for name in TYPES if table.column(name).null_count]:
        raise PipelineError(f"{uri}: {', '.join(empty)} is empty in some row; a label needs all three")
    if others := set(pc.unique(table.column(LABEL)).to_pylist()) - {LOW, HIGH}:
        raise PipelineError(f"{uri}: {LABEL} must be {LOW} or {HIGH}; {len(others)} other words were found")
    return (
        table.column(KEY).to_numpy(),
        table.column(TIME).cast(pa.int64()).to_numpy(),
        pc.equal(table.column(LABEL), HIGH).to_numpy(),
    )
