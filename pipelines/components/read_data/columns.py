"""Which columns of the file a run uses, and its requested rows as one table. Called by the readers of this folder.

Every reader hands its rows over as the same table: `line` and `user_id`, then, where the run asked for them, the
moment of each row and the columns to keep. The names are the file's own, white space around them cut off.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.errors import PipelineError
from pipelines.requested import ALL, AS_OF, KEY, LINE, OUTPUT

ROWS, TEXT = 200_000, 32 * 1024 * 1024  #: of a chunk at most: rows, and characters in them

Row = tuple[int, Sequence[str | None]]  #: the line it starts on, and its texts at the places that are used
Column = Callable[[int], pa.Array]  #: the values of the file's column at that place

# What is no id for sure, and so may be told: letters first, two digits at most, nothing hexadecimal.
NAME = re.compile(r"(?!.*\d.*\d.*\d)(?![0-9a-fA-F]{6,}$)[^\W\d][\w .-]*")
SHOWN = 40  #: characters of a name


@dataclass(frozen=True)
class Asked:
    """What a run wants of its file: `as_of_column` holds each row's moment, "" for none; `["*"]` keeps all columns."""

    as_of_column: str = ""
    keep_columns: tuple[str, ...] = ()


@dataclass(frozen=True)
class Chosen:
    """The places of the columns in the file: of the id, of the moment (None: none), of what is kept, by name."""

    names: tuple[str, ...]
    key: int
    moment: int | None
    kept: tuple[int, ...]

    @property
    def used(self) -> list[int]:
        """Every place that is read, in the file's order."""
        return sorted({self.key, *self.kept, *([] if self.moment is None else [self.moment])})

    def rows(self, lines: pa.Array, ids: pa.Array, moments: pa.Array | None, column: Column) -> "Rows":
        """Requested rows in the one shape."""
        made = {LINE: lines, KEY: ids} | ({} if moments is None else {AS_OF: moments})
        strange = {KEY: _strange(column(self.key), ids)}
        if self.moment is not None:
            strange[AS_OF] = _strange(column(self.moment), moments)
        return Rows(pa.table(made | {self.names[place]: column(place) for place in self.kept}), strange)


@dataclass(frozen=True)
class Rows:
    """Some requested rows, and in how many something stands where the id, the moment should be that is none."""

    table: pa.Table
    strange: dict[str, int]


def chunks(rows: Iterator[Row]) -> Iterator[list[Row]]:
    """The rows, many at a time: what bounds the memory, however wide they are."""
    chunk: list[Row] = []
    size = 0
    for row in rows:
        chunk.append(row)
        size += sum(len(text) for text in row[1] if text)
        if len(chunk) >= ROWS or size >= TEXT:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def choose(header: Sequence[str], asked: Asked, uri: str) -> Chosen:
    """Finds the columns by their names; what is not there, or there twice, or in the output anyhow, is an error."""
    names = [name.strip() for name in header]
    key = _key(names, uri)
    moment = _one(names, asked.as_of_column, "as_of_column", uri) if asked.as_of_column else None
    if asked.keep_columns == (ALL,):
        kept = [place for place, name in enumerate(names) if name and place != key]
    else:
        kept = [_one(names, name, "keep_columns", uri) for name in asked.keep_columns]
    _refuse_clashes([names[place] for place in kept], uri)
    return Chosen(tuple(names), key, moment, tuple(kept))


def _key(names: list[str], uri: str) -> int:
    if names.count(KEY) == 1:
        return names.index(KEY)
    if KEY in names:
        raise PipelineError(f"{uri} has {names.count(KEY)} columns called {KEY}; which one is meant?")
    if not all(_is_name(name) for name in names if name):
        raise PipelineError(
            f"{uri} has no header that names {KEY}; columns found (separated by commas): {len(names)}, which are not "
            "shown, for they may be a row"
        )
    raise PipelineError(f"{uri} has no column {KEY}; columns found (separated by commas): {listed(names)}")


def _one(names: list[str], name: str, parameter: str, uri: str) -> int:
    if names.count(name) == 1:
        return names.index(name)
    found = "more than one column" if name in names else "no column"
    raise PipelineError(f"{parameter}: {uri} has {found} {name[:40]!r}; columns found: {listed(names)}")


def _refuse_clashes(kept: list[str], uri: str) -> None:
    if twice := sorted({name for name in kept if kept.count(name) > 1}):
        raise PipelineError(f"keep_columns: {listed(twice)} would stand in the output twice; name each column once")
    if taken := [name for name in kept if name in OUTPUT]:
        raise PipelineError(
            f"keep_columns: the output has a column of its own called {', '.join(taken)}; rename it in {uri}, or name "
            "the columns to keep without it"
        )


def listed(names: Sequence[str]) -> str:
    """Some names for a message; what may be no name is only counted."""
    shown = [name.replace("\t", "\\t") for name in names if _is_name(name)][:20]
    others = sum(1 for name in names if name) - len(shown)
    return ", ".join([*shown, *([f"{others} more that are not shown"] if others else [])]) or "none"


def _is_name(text: str) -> bool:
    """Also several names, by another separator than a comma."""
    return len(text) <= SHOWN and all(NAME.fullmatch(part) for part in re.split(r"[;|\t]", text))


def _strange(values: pa.Array, read: pa.Array) -> int:
    if not read.null_count:
        return 0
    there = values.filter(pc.is_null(read)).drop_null()
    if pa.types.is_string(there.type) or pa.types.is_large_string(there.type):
        there = there.filter(pc.not_equal(pc.utf8_trim_whitespace(there), ""))
    return len(there)
