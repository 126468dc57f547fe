"""The moment of each row, where the file tells it. Called by the readers of this folder.

A text is a moment as parameters carry it: RFC 3339, with an offset (`pipelines.instant`). One without an offset, one
of another shape, an empty one: a null, and the row is `invalid`.
"""

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.errors import PipelineError
from pipelines.instant import parse_instant

TYPE = pa.timestamp("us", tz="UTC")
# What Arrow reads as Python does, but 20 times faster.
USUAL = (
    r"^[12][0-9]{3}-[01][0-9]-[0-3][0-9][T ][0-2][0-9]:[0-5][0-9]:[0-5][0-9](\.[0-9]{1,6})?"
    r"(Z|[+-][01][0-9]:[0-5][0-9])$"
)


def parse_moments(texts: pa.Array) -> pa.Array:
    """Texts as moments in UTC, null for what is none."""
    usual = pc.fill_null(pc.match_substring_regex(texts, USUAL), False)
    if pc.all(usual).as_py():
        try:
            return pc.cast(texts, TYPE)
        except pa.ArrowInvalid:  # a 30th of February
            pass
    distinct = pc.unique(texts)
    parsed = pa.array([_parsed(text) for text in distinct.to_pylist()], TYPE)
    return parsed.take(pc.index_in(texts, value_set=distinct))


def cast_moments(column: pa.Array, name: str, uri: str) -> pa.Array:
    """A Parquet column as moments: of times with a time zone, or of texts."""
    kind = column.type
    if pa.types.is_timestamp(kind) and kind.tz:
        return pc.cast(column, TYPE, safe=False)  # nanoseconds are cut off
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return parse_moments(pc.cast(column, pa.string()))
    raise PipelineError(
        f"as_of_column: {name} is {kind} in {uri}; a moment is a timestamp with a time zone, or RFC 3339 text"
    )


def _parsed(text: str | None) -> object:
    try:
        return None if text is None else parse_instant(text.strip(), "as_of_column")
    except PipelineError:
        return None
