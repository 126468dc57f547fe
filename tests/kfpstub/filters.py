"""List filters: unescaped once more, read as strictly as protojson does, and matched as MariaDB compares.

The rules are those of backend/src/apiserver/filter/filter.go in kubeflow/pipelines; IS_SUBSTRING is a LIKE there, so
`_` and `%` are wildcards in it.
"""

import json
import operator
import re
import unicodedata
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote_plus

from kfpstub.refusals import INVALID, Refused, refused
from kfpstub.stamps import seconds_of
from kfpstub.store import Row

NUMBERED = {
    1: "EQUALS", 2: "NOT_EQUALS", 3: "GREATER_THAN", 5: "GREATER_THAN_EQUALS", 6: "LESS_THAN", 7: "LESS_THAN_EQUALS",
    8: "IN", 9: "IS_SUBSTRING",
}  # fmt: skip
COMPARES: dict[str, Callable[[Any, Any], bool]] = {
    "EQUALS": operator.eq, "NOT_EQUALS": operator.ne, "GREATER_THAN": operator.gt, "GREATER_THAN_EQUALS": operator.ge,
    "LESS_THAN": operator.lt, "LESS_THAN_EQUALS": operator.le,
}  # fmt: skip
SCALARS = {"int_value": "int32", "long_value": "int64", "string_value": "string", "timestamp_value": "int64"}
LISTS = {"int_values": "[]int32", "long_values": "[]int64", "string_values": "[]string"}

Test = Callable[[Any], bool]
Predicate = tuple[str, Test]


def snake(name: str) -> str:
    """`stringValue` and `string_value` are one field to protojson."""
    return re.sub(r"[A-Z]", lambda found: "_" + found[0].lower(), name)


def folded(text: str) -> str:
    """As MariaDB's collation compares and sorts: without case, and without accents."""
    if text.isascii():
        return text.lower()
    return "".join(char for char in unicodedata.normalize("NFD", text.lower()) if not unicodedata.combining(char))


def parsed(text: str, fields: dict[str, str]) -> list[Predicate]:
    """(field, test) of each predicate; Refused with what the server says of a filter that it cannot read."""
    predicates = _document(text).get("predicates", [])
    found = []
    for one in predicates:
        if one.get("key") not in fields:
            raise _invalid(f'no support for filtering on unrecognized field "{one.get("key", "")}"')
        found.append((fields[one["key"]], _test(text, one)))
    return found


def has_in(text: str) -> bool:
    """Whether one of its predicates is an IN."""
    operations = (one.get("operation") for one in _document(text).get("predicates", []))
    return any(NUMBERED.get(one, one) == "IN" for one in operations)


def matches(row: Row, predicates: list[Predicate], value: Callable[[Row, str], Any]) -> bool:
    """All of them."""
    return all(test(value(row, field)) for field, test in predicates)


def _invalid(detail: str) -> Refused:
    return refused(INVALID, f"Invalid input error: {detail}", detail)


def _unreadable(text: str, why: str) -> Refused:
    return _invalid(f"failed to parse valid filter from {json.dumps(text, ensure_ascii=False)}: {why}")


def _document(text: str) -> Row:
    """The second unescaping is the server's own: `+` has become a blank by now, and `%25` a `%`."""
    broken = re.search(r"%(?![0-9a-fA-F]{2})", text)
    if broken:
        raise _unreadable(text, f"invalid URL escape {json.dumps(text[broken.start() : broken.start() + 3])}")
    plain = unquote_plus(text)
    try:
        document = json.loads(plain)
    except json.JSONDecodeError as error:
        word = re.match(r"\w*", plain[error.pos :])
        raise _unreadable(
            text, f"proto: syntax error (line 1:{error.pos + 1}): invalid value {word and word[0]}"
        ) from None
    known = {"operation", "key", *SCALARS, *LISTS}
    for one in document.get("predicates", []):
        for name in list(one):
            if snake(name) not in known:
                raise _unreadable(text, f'proto: (line 1:{_column(plain, name)}): unknown field "{name}"')
            one[snake(name)] = one.pop(name)
    return dict(document)


def _column(text: str, name: str) -> int:
    return text.index(f'"{name}"') + 1


def _test(text: str, one: Row) -> Test:
    given = one.get("operation", 0)
    operation = NUMBERED.get(given, "OPERATION_UNSPECIFIED") if isinstance(given, int) else str(given)
    field = next((name for name in one if name in SCALARS or name in LISTS), None)
    if field in LISTS and not isinstance(one[field], dict):
        plain = unquote_plus(text)
        token = f"proto: syntax error (line 1:{plain.index('[', plain.index(one['key'])) + 1}): unexpected token ["
        raise _unreadable(text, token)
    kind = (SCALARS | LISTS).get(field or "", "<nil>")
    value: Any = _folded(one[field]["values"] if field in LISTS else _scalar(field, one)) if field else None
    if operation == "IN":
        if field not in LISTS:
            raise _invalid(f"cannot use IN operator with scalar type {kind}")
        return lambda found: _folded(found) in value
    if operation == "IS_SUBSTRING":
        if kind != "string":
            raise _invalid(f"cannot use non string value type {kind} with operator {operation}")
        return _like(value)
    if operation not in COMPARES:
        raise _invalid(f"invalid predicate operation: {operation}")
    if field in LISTS:
        raise _invalid(f"cannot use scalar operator {operation} on array type {kind}")
    return lambda found: COMPARES[operation](_folded(found), value)


def _scalar(field: str, one: Row) -> Any:
    return seconds_of(one[field]) if field == "timestamp_value" else one[field]


def _folded(value: Any) -> Any:
    if isinstance(value, list):
        return [_folded(one) for one in value]
    return folded(value) if isinstance(value, str) else value


def _like(pattern: str) -> Test:
    wild = "".join({"%": ".*", "_": "."}.get(char, re.escape(char)) for char in pattern)
    compiled = re.compile(wild, re.DOTALL)
    return lambda found: compiled.search(_folded(found or "")) is not None
