"""Lists: sorted by a field and then by id, cut into pages, with tokens that are bound to the sort and the filter.

The rules are those of backend/src/apiserver/list/list.go in kubeflow/pipelines. A token names the first row of the next
page; it holds no experiment, so that a token alone goes on through everybody's runs.
"""

import base64
import binascii
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kfpstub import filters
from kfpstub.refusals import INVALID, Refused, refused
from kfpstub.store import Row

DEFAULT_SIZE, MAX_SIZE = 20, 200
MISMATCH = (
    "page token does not match the supplied sort by and/or filtering criteria. Either specify the same criteria or "
    "leave the latter empty if page token is specified"
)


@dataclass(frozen=True)
class Listing:
    """One kind of rows that can be listed."""

    type_name: str
    answer: str
    key: str
    fields: dict[str, str]
    value: Callable[[Row, str], Any]


@dataclass(frozen=True)
class Wanted:
    """What a client asked for, read."""

    sort: str
    descending: bool
    filter: str
    size: int
    start: tuple[Any, Any] | None = None


def wanted(listing: Listing, query: dict[str, str]) -> Wanted:
    """Refused when the server could not make sense of it."""
    size = _size(query.get("page_size", ""))
    sort, descending = _sorted_by(listing, query.get("sort_by", ""))
    text = query.get("filter", "")
    fresh = Wanted(sort, descending, text, size)
    if not query.get("page_token"):
        return fresh
    token = _token(query["page_token"])
    going = Wanted(
        token["SortByFieldName"], token["IsDesc"], token["Filter"], size,
        (token["SortByFieldValue"], token["KeyFieldValue"]),
    )  # fmt: skip
    asked = (fresh.sort, fresh.descending, fresh.filter)
    # Two filters with an IN are never the same to the real one (seen on 2.17): its token goes without them.
    if text and filters.has_in(text):
        raise invalid(MISMATCH)
    if (query.get("sort_by") or text) and asked != (going.sort, going.descending, going.filter):
        raise invalid(MISMATCH)
    return going


def page(listing: Listing, rows: list[Row], asked: Wanted) -> tuple[list[Row], int, str]:
    """The rows of this page, how many match in all, and the token of the next page or nothing."""
    if asked.filter:
        predicates = filters.parsed(asked.filter, listing.fields)
        rows = [row for row in rows if filters.matches(row, predicates, listing.value)]
    keyed = [((_sortable(listing.value(row, asked.sort)), row[listing.key]), row) for row in rows]
    if asked.start is not None:
        start = asked.start
        keyed = [one for one in keyed if (one[0] <= start if asked.descending else one[0] >= start)]
    keyed.sort(key=lambda one: one[0], reverse=asked.descending)
    more = keyed[asked.size : asked.size + 1]
    return [row for _, row in keyed[: asked.size]], len(rows), _next(asked, more[0][0]) if more else ""


def invalid(detail: str) -> Refused:
    """400 before the endpoint puts its own words in front."""
    return refused(INVALID, f"Invalid input error: {detail}", detail)


def _sortable(value: Any) -> Any:
    return filters.folded(value) if isinstance(value, str) else value


def _size(text: str) -> int:
    try:
        size = int(text or 0)
    except ValueError:
        raise Refused(400, {"code": INVALID, "message": f'parsing field "page_size": invalid value "{text}"'}) from None
    if size < 0:
        raise invalid(f"The page size should be greater than 0. Got {size}")
    return min(size or DEFAULT_SIZE, MAX_SIZE)


def _sorted_by(listing: Listing, text: str) -> tuple[str, bool]:
    words = text.lower().split()
    if len(words) > 2 or (len(words) == 2 and words[1] not in {"asc", "desc"}):
        supported = 'Supported format: "field_name", "field_name desc", or "field_name asc"'
        raise invalid(f'Received invalid sort by format "{text}". {supported}')
    if words and words[0] not in listing.fields:
        raise invalid(f'Invalid sorting field: "{words[0]}" on listable type {listing.type_name}')
    return listing.fields[words[0]] if words else "created_at", words[1:] == ["desc"]


def _token(text: str) -> Row:
    try:
        return dict(json.loads(base64.b64decode(text, validate=True)))
    except (binascii.Error, ValueError):
        why = f"illegal base64 data at input byte {len(text) // 4 * 4}"
        raise refused(INVALID, f"InvalidInputError: Invalid page token: {why}", "Invalid page token") from None


def _next(asked: Wanted, first: tuple[Any, Any]) -> str:
    token = {
        "SortByFieldName": asked.sort,
        "SortByFieldValue": first[0],
        "KeyFieldValue": first[1],
        "IsDesc": asked.descending,
        "Filter": asked.filter,
    }
    return base64.b64encode(json.dumps(token).encode()).decode()
