"""A file of ids in any of its formats → Parquet of requested rows. Called by read.py; knows no storage.

The format is told by the content, so that a wrong or missing suffix misleads nobody: gzip and Parquet by their first
bytes, JSON Lines by a brace at the start, everything else is CSV. Only where the content is none of what the name
promises does the name count, for the message.
"""

import gzip
import re
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import pyarrow.parquet as pq

from pipelines.components.read_data import csv_file, json_lines, parquet_file
from pipelines.components.read_data.columns import Asked, Rows
from pipelines.errors import PipelineError
from pipelines.requested import AS_OF, KEY, between_steps

GZIP, PARQUET = b"\x1f\x8b", b"PAR1"
SUFFIXES = {".parquet": "Parquet", ".pq": "Parquet", ".jsonl": "JSON Lines", ".ndjson": "JSON Lines"}
FOREIGN = {  #: what else a file may begin with, and what to do then
    GZIP: "is gzip twice; compress it once",
    b"PK\x03\x04": "is a zip or Excel file; save it as CSV",
    b"\xd0\xcf\x11\xe0": "is an Excel file; save it as CSV",
}
ARRAY = re.compile(rb'\[\s*([]["{0-9-]|$)')
READERS = {"Parquet": parquet_file.requested, "JSON Lines": json_lines.requested, "CSV": csv_file.requested}


@dataclass(frozen=True)
class Read:
    """What a file held: its format, its requested rows, how many of them have no valid id or moment; and each alone."""

    format: str
    rows: int
    invalid: int
    ids: int
    moments: int


def convert(source: Path, uri: str, output: Path, asked: Asked | None = None) -> Read:
    """Writes the requested rows of a file. All or nothing.

    A file without one valid id, or moment, is an error, unless nothing stands there: one bad row spoils no other, but a
    column that is none spoils all.
    """
    asked = asked or Asked()
    if source.stat().st_size == 0:
        raise PipelineError(f"{uri} is empty: it has not even a header")
    part = output.with_name(output.name + ".part")
    try:
        with _opened(source, uri) as (stream, compressed):
            name = _format(stream, uri)
            found = _write(READERS[name](stream, asked, uri), part)
        _check(found, asked, uri)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    part.replace(output)
    name = f"gzip {name}" if compressed else name
    return Read(name, found["rows"], found["invalid"], found[KEY], found[AS_OF])


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
    for begin, told in FOREIGN.items():
        if head.startswith(begin):
            raise PipelineError(f"{uri} {told}")
    text = head.removeprefix(csv_file.MARK).lstrip()
    if ARRAY.match(text):
        raise PipelineError(f"{uri} is a JSON array; write JSON Lines: an object on each line")
    if text.startswith(b"{"):
        return "JSON Lines"
    promised = SUFFIXES.get(Path(uri.removesuffix(".gz")).suffix.lower(), "CSV")
    if promised == "Parquet":
        raise PipelineError(f"{uri} is no Parquet file: it does not begin with PAR1")
    return promised


def _write(parts: Iterator[Rows], path: Path) -> Counter[str]:
    """Counts the rows, those without an id or a moment and without either, and those with something else there."""
    found: Counter[str] = Counter()
    writer: pq.ParquetWriter | None = None
    try:
        for part in parts:
            table = part.table
            writer = writer or between_steps(path, table.schema)
            writer.write_table(table)
            needed = table.select([name for name in (KEY, AS_OF) if name in table.column_names])
            found.update({name: needed.column(name).null_count for name in needed.column_names})
            found.update({"rows": table.num_rows, "invalid": table.num_rows - needed.drop_null().num_rows})
            found.update({f"strange {name}": count for name, count in part.strange.items()})
    finally:
        if writer is not None:
            writer.close()
    return found


def _check(found: Counter[str], asked: Asked, uri: str) -> None:
    rows = found["rows"]
    if not rows:
        raise PipelineError(f"{uri} has a header but no data rows")
    if found[KEY] == rows and found[f"strange {KEY}"]:
        raise PipelineError(
            f"not one {KEY} in {uri} ({rows} rows) can be read; write a whole number such as 42, in digits only: an id "
            "with a decimal point went through a float and may have lost digits"
        )
    if found[AS_OF] == rows and found[f"strange {AS_OF}"]:
        raise PipelineError(
            f"as_of_column: not one {asked.as_of_column} in {uri} ({rows} rows) can be read; write an RFC 3339 time "
            "with an offset, such as 2026-11-21T08:30:00Z"
        )
