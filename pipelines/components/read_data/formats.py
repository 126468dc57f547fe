"""A file of ids in any of its formats → Parquet of requested rows. Called by read.py; knows no storage.

The format is told by the content, so that a wrong or missing suffix misleads nobody: gzip and Parquet by their first
bytes, JSON Lines by a brace at the start, everything else is CSV. Only where the content is none of what the name
promises does the name count, for the message.
"""

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.components.read_data import csv_file, json_lines, parquet_file
from pipelines.components.read_data.columns import Asked
from pipelines.errors import PipelineError
from pipelines.requested import AS_OF, KEY, between_steps

GZIP, PARQUET = b"\x1f\x8b", b"PAR1"
SUFFIXES = {".parquet": "Parquet", ".pq": "Parquet", ".jsonl": "JSON Lines", ".ndjson": "JSON Lines"}
READERS = {"Parquet": parquet_file.requested, "JSON Lines": json_lines.requested, "CSV": csv_file.requested}


@dataclass(frozen=True)
class Read:
    """What a file held: its format, its requested rows, and how many of them have no valid id or moment."""

    format: str
    rows: int
    invalid: int


def convert(source: Path, uri: str, output: Path, asked: Asked | None = None) -> Read:
    """Writes the requested rows of a file. All or nothing."""
    if source.stat().st_size == 0:
        raise PipelineError(f"{uri} is empty: it has not even a header")
    part = output.with_name(output.name + ".part")
    try:
        with _opened(source, uri) as (stream, compressed):
            name = _format(stream, uri)
            rows, invalid = _write(READERS[name](stream, asked or Asked(), uri), part)
        if not rows:
            raise PipelineError(f"{uri} has a header but no data rows")
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    part.replace(output)
    return Read(f"gzip {name}" if compressed else name, rows, invalid)


@contextmanager
def _opened(source: Path, uri: str) -> Iterator[tuple[BinaryIO, bool]]:
    """The file's content, taken out of gzip where it is in it."""
    with source.open("rb") as file:
        compressed = file.read(2) == GZIP
        file.seek(0)
        if not compressed:
            yield file, False
            return
        try:
            with gzip.open(file) as content:
                yield cast(BinaryIO, content), True
        except (EOFError, gzip.BadGzipFile, zlib.error):
            raise PipelineError(f"{uri} is no whole gzip file; was its upload cut off?") from None


def _format(stream: BinaryIO, uri: str) -> str:
    head = stream.read(4096)
    stream.seek(0)
    if not head:
        raise PipelineError(f"{uri} is empty: it has not even a header")
    if head.startswith(PARQUET):
        return "Parquet"
    if head.removeprefix(csv_file.MARK).lstrip().startswith(b"{"):
        return "JSON Lines"
    promised = SUFFIXES.get(Path(uri.removesuffix(".gz")).suffix.lower(), "CSV")
    if promised == "Parquet":
        raise PipelineError(f"{uri} is no Parquet file: it does not begin with PAR1")
    return promised


def _write(tables: Iterator[pa.Table], path: Path) -> tuple[int, int]:
    """A row counts as invalid without an id, and without a moment where the file has a column of them."""
    rows = invalid = 0
    writer: pq.ParquetWriter | None = None
    try:
        for table in tables:
            writer = writer or between_steps(path, table.schema)
            writer.write_table(table)
            rows += table.num_rows
            lacking = table.select([name for name in (KEY, AS_OF) if name in table.column_names]).drop_null()
            invalid += table.num_rows - lacking.num_rows
    finally:
        if writer is not None:
            writer.close()
    return rows, invalid
