"""A JSON Lines file's requested rows. Called by formats.py; knows no storage.

Each line that isn't blank is a requested row: an object with `user_id`, a whole number or a text of one. `line` is
where it stands in the file, from 1: there is no header. The columns to keep become text: a text stays as it is, any
other value as JSON writes it. With `["*"]` they are those of the first line.
"""

import json
from collections.abc import Iterator
from itertools import islice
from typing import Any, BinaryIO

import pyarrow as pa

from pipelines.components.read_data.columns import Asked, Chosen, choose
from pipelines.components.read_data.ids import parse_ids
from pipelines.components.read_data.moments import parse_moments
from pipelines.errors import PipelineError
from pipelines.requested import ALL

ROWS = 200_000
LONGEST = 16 * 1024 * 1024  #: bytes of a line
Record = dict[str, Any]


def requested(stream: BinaryIO, asked: Asked, uri: str) -> Iterator[pa.Table]:
    """The requested rows, a table at a time."""
    stream.seek(0)
    records = _records(stream, uri)
    chunk = list(islice(records, ROWS))
    if not chunk:
        raise PipelineError(f"{uri} has no data rows")
    chosen = choose(list(chunk[0][1]), asked, uri)
    every = set(chosen.names) if asked.keep_columns == (ALL,) else None
    while chunk:
        if every is not None:
            _refuse_new(chunk, every, uri)
        yield _table(chunk, chosen)
        chunk = list(islice(records, ROWS))


def _records(stream: BinaryIO, uri: str) -> Iterator[tuple[int, Record]]:
    line = 0
    while raw := stream.readline(LONGEST + 1):
        line += 1
        try:
            text = raw.decode("utf-8-sig" if line == 1 else "utf-8").strip()
            record = json.loads(text) if text else None
        except UnicodeDecodeError:
            raise PipelineError(f"{uri} is not UTF-8 text at line {line}; save it as UTF-8") from None
        except (ValueError, RecursionError):
            record = text
        if text and (not isinstance(record, dict) or len(raw) > LONGEST):
            raise PipelineError(f"{uri} is no JSON Lines: line {line} is not one JSON object")
        if record is not None:
            yield line, record


def _refuse_new(chunk: list[tuple[int, Record]], every: set[str], uri: str) -> None:
    for line, record in chunk:
        if new := record.keys() - every:
            raise PipelineError(
                f"{uri} has {', '.join(sorted(new))[:200]} at line {line}, which its first line lacks: name the "
                "columns to keep in keep_columns"
            )


def _table(chunk: list[tuple[int, Record]], chosen: Chosen) -> pa.Table:
    def column(place: int) -> pa.Array:
        return pa.array([_text(record.get(chosen.names[place])) for _, record in chunk], pa.string())

    ids = parse_ids(pa.array([_id(record.get(chosen.names[chosen.key])) for _, record in chunk], pa.string()))
    moments = None
    if chosen.moment is not None:
        name = chosen.names[chosen.moment]
        texts = [record.get(name) for _, record in chunk]
        moments = parse_moments(pa.array([text if isinstance(text, str) else None for text in texts], pa.string()))
    return chosen.table(pa.array([line for line, _ in chunk], pa.int64()), ids, moments, column)


def _id(value: object) -> str | None:
    """`42` and `"42"`; `42.0` is a float, whose last digits may be lost, and `true` is no number."""
    return value if isinstance(value, str) else str(value) if type(value) is int else None


def _text(value: object) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)
