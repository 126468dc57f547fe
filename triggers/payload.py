"""Foreign JSON taken apart carefully: what is not of the documented shape is NotUnderstood, never another exception.

Called by the sources. Numbers that no machine holds, duplicate keys, NaN, nesting that ends the stack, text that cannot
be encoded: each was seen to break a server behind `json.loads`. Says what is wrong by field name, never by value.
"""

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Never

from triggers.errors import NotUnderstood

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")  # PostgreSQL has no NUL in text, UTF-8 no lone surrogate
_CONTROL = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")
_MAX_INT = 2**63 - 1


def json_value(body: bytes) -> Any:
    """The JSON value of a body."""
    try:
        return json.loads(body.decode("utf-8"), object_pairs_hook=_object, parse_constant=_constant)
    except UnicodeDecodeError:
        raise NotUnderstood("the body is not UTF-8") from None
    except RecursionError:
        raise NotUnderstood("the JSON is nested too deep") from None
    except ValueError:
        raise NotUnderstood("the body is not JSON") from None


def json_object(body: bytes) -> dict[str, Any]:
    """The JSON object of a body."""
    found = json_value(body)
    if not isinstance(found, dict):
        raise NotUnderstood("the body is not a JSON object")
    return found


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise NotUnderstood("a key stands twice in one JSON object")
    return found


def _constant(_: str) -> Never:
    raise NotUnderstood("NaN and Infinity are not JSON")


def clean(text: str) -> str:
    """Free text as it can be stored: what cannot be is shown as U+FFFD."""
    return _UNSTORABLE.sub("\ufffd", text)


def text(of: Mapping[str, Any], name: str) -> str:
    """Free text; absent and null are ""."""
    found = of.get(name)
    if found is None:
        return ""
    if not isinstance(found, str):
        raise NotUnderstood(f"{name} is not text")
    return clean(found)


def token(of: Mapping[str, Any], name: str, longest: int = 1024) -> str:
    """Text that names something: there, on one line, kept to the letter."""
    found = of.get(name)
    if not isinstance(found, str) or not found:
        raise NotUnderstood(f"{name} is missing or not text")
    if len(found) > longest or _CONTROL.search(found):
        raise NotUnderstood(f"{name} is too long or holds control characters")
    return found


def whole(of: Mapping[str, Any], name: str) -> int:
    """A whole number from 0 that fits 64 bits; absent and null are 0."""
    found = of.get(name)
    if found is None:
        return 0
    if not isinstance(found, int) or isinstance(found, bool) or not 0 <= found <= _MAX_INT:
        raise NotUnderstood(f"{name} is not a whole number")
    return found


def flag(of: Mapping[str, Any], name: str) -> bool:
    """True or false; absent and null are false."""
    found = of.get(name)
    if found is None:
        return False
    if not isinstance(found, bool):
        raise NotUnderstood(f"{name} is neither true nor false")
    return found


def mapping(of: Any, name: str) -> dict[str, Any]:
    """An object inside an object; absent and null are empty."""
    if not isinstance(of, Mapping):
        raise NotUnderstood(f"what should hold {name} is not an object")
    found = of.get(name)
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise NotUnderstood(f"{name} is not an object")
    return found


def sequence(of: Mapping[str, Any], name: str) -> list[Any]:
    """An array inside an object; absent and null are empty."""
    found = of.get(name)
    if found is None:
        return []
    if not isinstance(found, list):
        raise NotUnderstood(f"{name} is not an array")
    return found


def texts(of: Mapping[str, Any], name: str) -> list[str]:
    """An array of free texts."""
    return [text({name: item}, name) for item in sequence(of, name) if item is not None]


def text_map(of: Mapping[str, Any], name: str) -> dict[str, str]:
    """An object of free texts."""
    found = mapping(of, name)
    return {clean(key): text(found, key) for key in found}


def moment(of: Mapping[str, Any], name: str) -> datetime:
    """An RFC 3339 time, of our era."""
    found = of.get(name)
    try:
        parsed = datetime.fromisoformat(found) if isinstance(found, str) else None
        if parsed is not None and parsed.tzinfo is not None and 1970 < parsed.year < 9999:
            return parsed.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise NotUnderstood(f"{name} is not a time")
