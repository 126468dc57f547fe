"""A JSON Lines file's requested rows. Called by formats.py; knows no storage.

Each line that isn't blank is a requested row: an object with `user_id`, a whole number or a text of one. `line` is
where it stands in the file, from 1: there is no header. The columns to keep become text: a text stays as it is, any
other value as JSON writes it. With `["*"]` they are those of the first line.
"""

import json
from collections.abc import Iterator
from itertools import chain
from typing import Any, BinaryIO

import pyarrow as pa

from pipelines.components.read_data.columns import Asked, Chosen, Row, Rows, choose, chunks, listed
from pipelines.components.read_data.ids import parse_ids
from pipelines.components.read_data.moments import parse_moments
from pipelines.errors import PipelineError
from pipelines.requested import ALL

LONGEST = 16 * 1024 * 1024  #: bytes of a line
Record = dict[str, Any]


def requested(stream: BinaryIO, asked: Asked, uri: str) -> Iterator[Rows]:
    """The requested rows, many at a time."""
    stream.seek(0)
    records = _records(stream, uri)
    first = next(records, None)
    if first is None:
        raise PipelineError(f"{uri} has no data rows")
    chosen = choose([_encodable(name) for name in first[1]], asked, uri)
    every = set(chosen.names) if asked.keep_columns == (ALL,) else None
    rows = (_row(line, record, chosen, every, uri) for line, record in chain([first], records))
    for chunk in chunks(rows):
        yield _rows(chunk, chosen)


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


def _row(line: int, record: Record, chosen: Chosen, every: set[str] | None, uri: str) -> Row:
    """The texts that are used; with `["*"]` a name that the first line lacks is an error, for its values would go."""
    if every is not None and (new := {_encodable(name) for name in record} - every):
        raise PipelineError(
            f"{uri} has {listed(sorted(new))} at line {line}, which its first line lacks: name the "
            "columns to keep in keep_columns"
        )
    values = {_encodable(name): value for name, value in record.items()}
    return line, [_text(values.get(chosen.names[place])) for place in chosen.used]


def _rows(chunk: list[Row], chosen: Chosen) -> Rows:
    columns = {
        place: pa.array([texts[number] for _, texts in chunk], pa.string()) for number, place in enumerate(chosen.used)
    }
    moments = None if chosen.moment is None else parse_moments(columns[chosen.moment])
    lines = pa.array([line for line, _ in chunk], pa.int64())
    return chosen.rows(lines, parse_ids(columns[chosen.key]), moments, columns.__getitem__)


def _text(value: object) -> str | None:
    """`42` and `"42"` alike, which is an id; `42.0`, a float whose last digits may be lost, and `true` are none."""
    if value is None:
        return None
    return _encodable(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def _encodable(text: str) -> str:
    """JSON may hold half of a surrogate pair, which no UTF-8 text can: it becomes a question mark."""
    return text if text.isascii() else text.encode(errors="replace").decode()
