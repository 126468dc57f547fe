"""Taking out of a delivery what its source says nobody is to keep: fields of the body, and headers.

Called by `service.flow.receive` once a delivery is authentic and read, before anything is stored.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs, urlencode

from triggers.errors import NotUnderstood
from triggers.event import Delivery
from triggers.payload import json_value

REDACTED = "[redacted]"
HOW = "a field's name, which is also a header's, or a path from the top, `a.b.c`; `*` stands for any one field"
_ENTRY = re.compile(r"(\$\.)?[^.\s]{1,200}(\.[^.\s]{1,200}){0,20}")
_FORM = "application/x-www-form-urlencoded"


def is_entry(value: Any) -> bool:
    """Whether it is a name or a path."""
    return isinstance(value, str) and _ENTRY.fullmatch(value) is not None


def redact(delivery: Delivery, entries: Sequence[str]) -> Delivery:
    """The delivery without what the entries name, lists looked through.

    A value keeps its JSON type: texts become `[redacted]`, numbers 0, lists and objects empty. A body that is no JSON
    is emptied, for nobody can say what is in it.
    """
    names = {entry.lower() for entry in entries if "." not in entry}
    paths = [entry.removeprefix("$.").split(".") for entry in entries if "." in entry]
    headers = {name: REDACTED if name in names else text for name, text in delivery.headers.items()}
    try:
        body = _body(delivery, lambda value: _walk(value, names, paths))
    except (NotUnderstood, RecursionError, ValueError, LookupError):
        body = b""
    return replace(delivery, headers=headers, body=body)


def _body(delivery: Delivery, change: Any) -> bytes:
    if not delivery.headers.get("content-type", "").startswith(_FORM):
        found = json_value(delivery.body)
        return delivery.body if (changed := change(found)) == found else json.dumps(changed).encode()
    form = parse_qs(delivery.body.decode("ascii"), strict_parsing=True)
    return urlencode({"payload": json.dumps(change(json_value(form["payload"][0].encode())))}).encode()


def _walk(value: Any, names: set[str], paths: Sequence[Sequence[str]]) -> Any:
    if isinstance(value, list):
        return [_walk(item, names, paths) for item in value]
    if not isinstance(value, Mapping):
        return value
    return {name: _field(name, item, names, paths) for name, item in value.items()}


def _field(name: str, item: Any, names: set[str], paths: Sequence[Sequence[str]]) -> Any:
    below = [path[1:] for path in paths if path[:1] in ([name], ["*"])]
    if name.lower() in names or [] in below:
        return _blank(item)
    return _walk(item, names, below)


def _blank(value: Any) -> Any:
    if value is None or isinstance(value, bool):
        return value and False
    return REDACTED if isinstance(value, str) else type(value)()
