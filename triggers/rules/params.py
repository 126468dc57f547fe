"""Whether values fit a pipeline's inputs: stricter than KFP, which takes 1.5 for an int and lets Argo evaluate `{{`.

Called by `check` on samples and by `decision` on the real values. A finding says what is wrong, never the value
itself. Facts behind each refusal were measured on KFP 2.17 with Argo 4.0.
"""

import json
import math
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from triggers.rules.place import instead_of
from triggers.schema import Input

MAX_VALUE = 64 << 10  #: bytes of one value as JSON; above about 700 kB a run is accepted and never progresses
MAX_INT = 1 << 53  #: beyond it KFP loses digits silently

_KINDS = {
    "STRING": "text",
    "NUMBER_INTEGER": "a whole number",
    "NUMBER_DOUBLE": "a number",
    "BOOLEAN": "true or false",
    "LIST": "a list",
    "STRUCT": "a map",
}


def misfit(name: str, value: Any, declared: Mapping[str, Input]) -> str:
    """What is wrong with this one parameter, or ""."""
    if name not in declared:
        return f"the pipeline has no input `{name}`{instead_of(name, sorted(declared), 'it has')}"
    wanted = declared[name].type
    if wanted in _KINDS and not _is(wanted, value):
        return f"must be {_KINDS[wanted]} ({wanted}), and is {_kind(value)}"
    if name == "as_of" and not _is_instant(value):
        return "must be a time with its zone, as `2026-01-02T03:04:05Z`"
    return unsafe(value)


def unsafe(value: Any) -> str:
    """What is wrong with a value for any input, or ""."""
    return next(_bad_content(value), "") or _too_long(value)


def missing(names: Mapping[str, Any], declared: Mapping[str, Input]) -> list[str]:
    """The inputs that must be given and are not."""
    return [name for name, one in declared.items() if not one.optional and name not in names]


def _is(wanted: str, value: Any) -> bool:
    if wanted == "STRING":
        return isinstance(value, str)
    if wanted == "BOOLEAN":
        return isinstance(value, bool)
    if wanted == "LIST":
        return isinstance(value, list)
    if wanted == "STRUCT":
        return isinstance(value, Mapping)
    number = int if wanted == "NUMBER_INTEGER" else int | float
    return isinstance(value, number) and not isinstance(value, bool)


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float):
        return "a whole number" if isinstance(value, int) else "a number with a point"
    return "text" if isinstance(value, str) else "a list" if isinstance(value, list) else "a map"


def _bad_content(value: Any) -> Iterator[str]:
    """What no value may hold at any depth, keys included."""
    if isinstance(value, str):
        yield from _bad_text(value)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _bad_text(key)
            yield from _bad_content(item)
    elif isinstance(value, list):
        for item in value:
            yield from _bad_content(item)
    elif isinstance(value, float) and not math.isfinite(value):
        yield "is not a finite number"
    elif isinstance(value, int | float) and abs(value) > MAX_INT and (isinstance(value, int) or value.is_integer()):
        yield "holds a whole number beyond 2^53, of which KFP loses digits: pass it as text"


def _bad_text(text: str) -> Iterator[str]:
    if "{{" in text:
        yield "holds `{{`, which the workflow engine would evaluate: take the text from an object instead"
    if any(ord(character) > 0xFFFF for character in text):
        yield "holds a 4-byte character (an emoji, say), on which KFP's database fails after it has started the run"
    if any(0xD800 <= ord(character) <= 0xDFFF for character in text):
        yield "holds half a character (a lone surrogate), which is no text"


def _too_long(value: Any) -> str:
    size = len(json.dumps(value, ensure_ascii=False).encode())
    return f"is longer than {MAX_VALUE // 1024} KiB: put it into an object and pass its URI" if size > MAX_VALUE else ""


def _is_instant(value: Any) -> bool:
    try:
        return datetime.fromisoformat(value).tzinfo is not None
    except (TypeError, ValueError):
        return False
