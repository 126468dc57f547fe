"""What an id is, for one text and for a column of them. Called by the readers of this folder; knows no file.

An id is written in ASCII digits, with a sign if need be and white space around it if need be, and fits in 64 bits.
Everything else is `invalid`, a null: `42.0` and `1e3` (an id that went through a float may have lost digits), digits
of other scripts, an empty field.
"""

import re

import pyarrow as pa
import pyarrow.compute as pc

INTEGER = re.compile(r"[+-]?[0-9]+", re.ASCII)
PLAIN = 18  #: digits that fit in 64 bits whatever they are


def parse_id(text: str) -> int | None:
    """The id, or None for an invalid one."""
    stripped = text.strip()
    if not INTEGER.fullmatch(stripped) or len(stripped) > 100:
        return None
    number = int(stripped)
    return number if -(2**63) <= number < 2**63 else None


def parse_ids(texts: pa.Array) -> pa.Array:
    """`parse_id` of a column, null for null: nearly all are plain digits, the others are looked at one by one."""
    plain = plain_digits(texts)
    numbers = pc.cast(pc.if_else(plain, texts, None), pa.int64())
    if pc.all(plain).as_py() is not False:
        return numbers
    others = pc.invert(plain)
    parsed = [None if text is None else parse_id(text) for text in texts.filter(others).to_pylist()]
    return pc.replace_with_mask(numbers, others, pa.array(parsed, pa.int64()))


def plain_digits(texts: pa.Array) -> pa.Array:
    """Which texts are a few ASCII digits and nothing else; a null is not."""
    short = pc.and_(pc.ascii_is_decimal(texts), pc.less_equal(pc.binary_length(texts), PLAIN))
    return pc.fill_null(short, False)
