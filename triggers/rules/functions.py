"""The functions that an expression may call: the library's own, its `cel.stdlib`, and ours. Published as data.

`expression` puts them into every context. Each is wrapped: a refusal never repeats its arguments (the library logs
it), and no result grows past what an expression may see.
"""

import functools
import re
from collections.abc import Callable, Mapping
from typing import Any

from cel.stdlib import EXTENSIONS

MAX_ITEMS = 1_000  #: in any list or map that an expression sees: a macro over more stalls every thread
MAX_TEXT = 1 << 20

_MACROS = "has all exists exists_one existsOne map filter"
_CORE = "size contains startsWith endsWith matches int uint double string bytes timestamp duration type dyn"
_OPTIONAL = "optional.of optional.none optional.ofNonZeroValue hasValue value or orValue"
_TIME = "getFullYear getMonth getDate getDayOfMonth getDayOfYear getDayOfWeek"
_CLOCK = "getHours getMinutes getSeconds getMilliseconds"
#: Built into the library.
BUILT_IN = frozenset(f"{_MACROS} {_CORE} {_OPTIONAL} {_TIME} {_CLOCK}".split())


def default(values: Mapping[str, Any], key: str, fallback: Any) -> Any:
    """default(map, key, fallback): the map's value, or the fallback where the key is missing or null."""
    found = values.get(key)
    return fallback if found is None else found


def slug(text: str) -> str:
    """slug(text): lower case, every run of other characters than a-z and 0-9 as one `-`."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def basename(text: str) -> str:
    """basename(text): what follows the last `/`."""
    return text.rpartition("/")[2]


OURS: Mapping[str, Callable[..., Any]] = {"default": default, "slug": slug, "basename": basename}


def _bounded_range(count: int) -> list[int]:
    if count > MAX_ITEMS:
        raise ValueError("too many")
    return list(range(count))


def _bounded_replace(text: str, old: str, new: str, limit: int = -1) -> str:
    if len(text) + text.count(old) * len(new) > MAX_TEXT:
        raise ValueError("too long")
    return text.replace(old, new, max(limit, -1))


_BOUNDED: Mapping[str, Callable[..., Any]] = {"lists.range": _bounded_range, "replace": _bounded_replace}


def _guarded(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, silent about its arguments and bounded in what it returns."""

    @functools.wraps(function)
    def call(*arguments: Any) -> Any:
        try:
            result = function(*arguments)
        except (TypeError, AttributeError):
            raise TypeError("its arguments have the wrong type or number") from None
        except Exception:  # noqa: BLE001  # whatever a library function raises is its refusal
            raise ValueError("it refuses these arguments") from None
        if isinstance(result, (list, str)) and len(result) > (MAX_ITEMS if isinstance(result, list) else MAX_TEXT):
            raise ValueError("its result is too long")
        return result

    return call


_STANDARD = {name: function for library in EXTENSIONS.values() for name, function in library.items()}

#: What a context is filled with.
FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    name: _guarded(function) for name, function in {**_STANDARD, **_BOUNDED, **OURS}.items()
}

#: Every name that may be called.
CALLABLE = BUILT_IN | frozenset(FUNCTIONS)
