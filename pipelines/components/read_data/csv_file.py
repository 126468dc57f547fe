"""A CSV file's requested rows. Called by formats.py; knows no storage.

A *requested row* is every data line that isn't blank (nothing, or only white space). Its `line` is where it starts in
the file, the header's first line being 1 where nothing precedes it. What can't be read as UTF-8 or as CSV ends the
run, for a row could be lost unseen.

The rules are those of Python's csv module, strict. It reads a million rows in two seconds; PyArrow does in a tenth of
one, with rules of its own. So the file is taken in blocks of whole lines, and PyArrow gets those in which the two
cannot differ: no quote, no lone carriage return, as many fields in each line as in the header. A block with a quote
goes to the csv module together with all that follows, for a quoted field may hold line ends.
"""

import csv
import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv as arrow

from pipelines.components.read_data.columns import Asked, Chosen, Rows, choose, chunks
from pipelines.components.read_data.ids import parse_ids, plain_digits
from pipelines.components.read_data.moments import parse_moments
from pipelines.errors import PipelineError

BLOCK = 4 * 1024 * 1024
LONGEST = 128 * 1024  #: characters of a field: the csv module's own limit
MARK = b"\xef\xbb\xbf"


def requested(stream: BinaryIO, asked: Asked, uri: str) -> Iterator[Rows]:
    """The requested rows, many at a time. The stream can seek."""
    line, at, header = _header(stream, uri)
    chosen = choose(header, asked, uri)
    stream.seek(at)
    for block in _blocks(stream):
        rows = _fast(block, line, chosen)
        if rows is not None:
            yield rows
        elif b'"' in block or not block.endswith(b"\n"):
            stream.seek(at)
            yield from _strict(stream, line, chosen, uri)
            return
        else:
            yield from _strict(io.BytesIO(block), line, chosen, uri)
        line += block.count(b"\n") + block.count(b"\r") - block.count(b"\r\n")
        at += len(block)


class _Lines:
    """The lines of a text for the csv module, and what it doesn't tell: the last one, how many, of how many bytes;

    and after which line the record starts that is being read.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self.text = io.TextIOWrapper(stream, encoding="utf-8", newline="")
        self.last, self.count, self.size, self.read = "", 0, 0, 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.text.detach()  # the stream stays open: it is its owner's

    def __iter__(self) -> Iterator[str]:
        for line in self.text:
            self.last = line
            self.count += 1
            self.size += len(line.encode())
            yield line


def _header(stream: BinaryIO, uri: str) -> tuple[int, int, list[str]]:
    """The line that the data starts on, its first byte, and the names that stand before it."""
    stream.seek(0)
    mark = len(MARK) if stream.read(len(MARK)) == MARK else 0
    stream.seek(mark)
    with _Lines(stream) as lines, _explained(uri, lines):
        header = next((record for _, record in _records(lines, 1)), [])
    return lines.count + 1, mark + lines.size, header


def _blocks(stream: BinaryIO) -> Iterator[bytes]:
    """Whole lines, about four MiB at a time; one that goes on beyond LONGEST is cut, and no block for `_fast`."""
    rest = b""
    while piece := stream.read(BLOCK):
        piece = rest + piece
        cut = piece.rfind(b"\n") + 1 or (len(piece) if len(piece) > LONGEST else 0)
        if cut:
            yield piece[:cut]
        rest = piece[cut:]
    if rest:
        yield rest


def _fast(block: bytes, line: int, chosen: Chosen) -> Rows | None:
    """A block by PyArrow; None where the csv module might see it otherwise."""
    if not _plain(block, blank_lines=len(chosen.names) == 1):
        return None
    places = chosen.used
    try:
        texts = arrow.read_csv(
            pa.BufferReader(block),
            arrow.ReadOptions(use_threads=False, column_names=[str(n) for n in range(len(chosen.names))]),
            arrow.ParseOptions(quote_char=False, ignore_empty_lines=False),
            arrow.ConvertOptions(
                check_utf8=False,  # `_plain` did
                include_columns=[str(place) for place in places],
                column_types={str(place): pa.string() for place in places},
                null_values=[],
                strings_can_be_null=False,
            ),
        ).combine_chunks()
    except pa.ArrowInvalid:  # a line with more fields than the header, or fewer; a blank one beside other columns too
        return None
    lines = pa.array(np.arange(line, line + texts.num_rows, dtype=np.int64))
    columns = {place: _whole(texts.column(str(place))) for place in places}
    if len(chosen.names) == 1:
        there = _not_blank(columns[chosen.key])
        lines, columns = lines.filter(there), {chosen.key: columns[chosen.key].filter(there)}
    return _rows(lines, columns, chosen)


def _plain(block: bytes, *, blank_lines: bool) -> bool:
    """Whether the csv module and PyArrow agree on the block, ragged lines apart.

    To PyArrow an empty line is a row of empty fields, which is told from a row of one field only.
    """
    if any(odd in block for odd in (b'"', b"\0")) or block.count(b"\r") != block.count(b"\r\n"):
        return False
    ends = np.flatnonzero(np.frombuffer(block, np.uint8) == ord("\n"))
    lengths = np.diff(ends, prepend=-1)  # line ends included
    if block.startswith(MARK) or max(lengths.max(initial=0), len(block) - ends.max(initial=-1)) > LONGEST:
        return False
    if not blank_lines and lengths.min(initial=LONGEST) <= (2 if b"\r" in block else 1):
        return False
    try:
        block.isascii() or block.decode()
    except UnicodeDecodeError:
        return False
    return True


def _strict(stream: BinaryIO, line: int, chosen: Chosen, uri: str) -> Iterator[Rows]:
    """The stream from where it stands, which is the start of `line`, by the csv module."""
    used = chosen.used
    with _Lines(stream) as lines:
        found = chunks(
            (start, [record[place] if place < len(record) else None for place in used])
            for start, record in _records(lines, line)
        )
        while True:
            with _explained(uri, lines, line - 1):
                chunk = next(found, None)
            if chunk is None:
                return
            columns = {
                place: pa.array([texts[number] for _, texts in chunk], pa.string()) for number, place in enumerate(used)
            }
            yield _rows(pa.array([start for start, _ in chunk], pa.int64()), columns, chosen)


def _records(lines: _Lines, first: int) -> Iterator[tuple[int, list[str]]]:
    """Every record that isn't blank, with the line it starts on; a quoted field may go over several lines.

    The csv module tells a line of white space from a quoted blank field no more, so the line itself is looked at.
    """
    reader = csv.reader(lines, strict=True)
    start = 1
    for record in reader:
        lines.read = reader.line_num
        if reader.line_num > start or lines.last.strip():
            yield first + start - 1, record
        start = reader.line_num + 1


def _rows(lines: pa.Array, columns: dict[int, pa.Array], chosen: Chosen) -> Rows:
    moments = None if chosen.moment is None else parse_moments(columns[chosen.moment])
    return chosen.rows(lines, parse_ids(columns[chosen.key]), moments, columns.__getitem__)


def _not_blank(texts: pa.Array) -> pa.Array:
    plain = plain_digits(texts)
    odd = pc.invert(plain)
    there = [bool(text.strip()) for text in texts.filter(odd).to_pylist()]
    return pc.replace_with_mask(plain, odd, pa.array(there, pa.bool_()))


def _whole(column: pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)


@contextmanager
def _explained(uri: str, lines: _Lines, before: int = 0) -> Iterator[None]:
    """What can't be read, in words, without quoting it."""
    try:
        yield
    except UnicodeDecodeError:
        line = before + lines.read
        where = f", somewhere after line {line}" if line else ""
        raise PipelineError(f"{uri} is not UTF-8 text{where}; save it as UTF-8") from None
    except csv.Error as error:
        raise PipelineError(
            f"{uri} is no valid CSV after line {before + lines.read}: {error}; look for a stray or unclosed quote"
        ) from None
