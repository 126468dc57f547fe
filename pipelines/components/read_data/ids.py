"""CSV of ids → Parquet of requested rows. Called by component.py; knows no storage.

A *requested row* is every data line that isn't blank (nothing, or only white space). Its `line` is where it starts in
the file. An id is written in ASCII digits, with a sign if need be and white space around it if need be, and fits in
64 bits. Everything else is `invalid`, a null: `42.0` and `1e3` (an id that went through a float may have lost
digits), digits of other scripts, an empty field.
"""

import csv
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.errors import PipelineError

COLUMN = "user_id"
SCHEMA = pa.schema([("line", pa.int64()), (COLUMN, pa.int64())])
ROW_GROUP = 200_000
INTEGER = re.compile(r"[+-]?[0-9]+", re.ASCII)


def parse_id(text: str) -> int | None:
    """The id, or None for an invalid one."""
    stripped = text.strip()
    if not INTEGER.fullmatch(stripped) or len(stripped) > 100:
        return None
    number = int(stripped)
    return number if -(2**63) <= number < 2**63 else None


def convert(source: Path, uri: str, output: Path) -> tuple[int, int]:
    """Writes the requested rows of a CSV file and says how many there are, and how many of them are invalid.

    All or nothing.
    """
    part = output.with_name(output.name + ".part")
    try:
        rows, invalid = _write(_requested(source, uri), part)
        if not rows:
            raise PipelineError(f"{uri} has a header but no data rows")
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    part.replace(output)
    return rows, invalid


def _write(requested: Iterator[tuple[int, int | None]], path: Path) -> tuple[int, int]:
    rows = invalid = 0
    with pq.ParquetWriter(path, SCHEMA, compression="zstd") as writer:
        while chunk := list(islice(requested, ROW_GROUP)):
            lines, ids = zip(*chunk, strict=True)
            table = pa.table([pa.array(lines, pa.int64()), pa.array(ids, pa.int64())], schema=SCHEMA)
            writer.write_table(table)
            rows += table.num_rows
            invalid += table.column(COLUMN).null_count
    return rows, invalid


def _requested(source: Path, uri: str) -> Iterator[tuple[int, int | None]]:
    """(line, id) of every requested row.

    What can't be read as UTF-8 or as CSV ends the run: a row would be lost unseen.
    """
    if source.stat().st_size == 0:
        raise PipelineError(f"{uri} is empty: it has not even a header")
    line = 0
    try:
        with source.open(encoding="utf-8-sig", newline="") as file:
            records = _records(file)
            line, header = next(records, (1, []))
            place = _column(header, uri)
            for line, record in records:
                yield line, parse_id(record[place]) if place < len(record) else None
    except UnicodeDecodeError:
        raise PipelineError(f"{uri} is not UTF-8 text, somewhere after line {line}; save it as UTF-8") from None
    except csv.Error as error:
        raise PipelineError(
            f"{uri} is no valid CSV after line {line}: {error}; look for a stray or unclosed quote"
        ) from None


def _records(file: Iterator[str]) -> Iterator[tuple[int, list[str]]]:
    """Every record that isn't blank, with the line it starts on; a quoted field may go over several lines."""
    reader = csv.reader(_remember(file, last := [""]), strict=True)
    start = 1
    for record in reader:
        if reader.line_num > start or last[0].strip():
            yield start, record
        start = reader.line_num + 1


def _remember(lines: Iterator[str], last: list[str]) -> Iterator[str]:
    """The csv module tells a line of white space from a quoted blank field no more, so the line itself is kept."""
    for line in lines:
        last[0] = line
        yield line


def _column(header: list[str], uri: str) -> int:
    names = [name.strip() for name in header]
    if names.count(COLUMN) == 1:
        return names.index(COLUMN)
    if COLUMN in names:
        raise PipelineError(f"{uri} has {names.count(COLUMN)} columns called {COLUMN}; which one is meant?")
    if len(names) == 1 and parse_id(names[0]) is not None:
        raise PipelineError(f"{uri} has no header: its first line must name the columns, one of them {COLUMN}")
    found = ", ".join(name[:40] for name in names[:20]) or "none"
    raise PipelineError(f"{uri} has no column {COLUMN}; columns found (separated by commas): {found}")
