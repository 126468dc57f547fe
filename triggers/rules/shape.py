"""From a document to shapes: pydantic checks, and its findings said the way a person can act on them.

Called by `load`. Goes on after a finding: an unknown key or a verb that is not built is taken out, a rule that still
has no shape is left out, and the others are read. Knows no event, no expression, no pipeline.
"""

import copy
from collections.abc import Iterator, Mapping
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from triggers.rules.grammar import API_VERSION, NOT_BUILT, Defaults, FileShape, RuleShape
from triggers.rules.place import Place, instead_of
from triggers.yamlfile import Path

_MESSAGES = {
    "string_too_short": "is empty",
    "list_type": "must be a list",
    "dict_type": "must be a mapping of `key: value`",
    "model_type": "must be a mapping of `key: value`",
    "int_type": "must be a whole number",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "too_short": "must hold at least one",
}
_UNITS: dict[str | int, str] = {"cooldown": "`6h`", "time_limit": "`2h`", "at_most": "`5GiB`", "every": "`6h`"}
_KEYS = {
    "rules": "is no name for a rule: lower-case letters, digits and `-`, at most 63, not starting with `-`",
    "lookup": "is no name for a lookup: lower-case letters, digits and `_`, starting with a letter",
}


def read_shapes(place: Place) -> tuple[Defaults, dict[str, RuleShape]]:
    """The defaults and the rules whose shape is right; everything else goes to the place as problems."""
    value = copy.deepcopy(place.document.value)
    if not isinstance(value, dict):
        place.wrong(f"is no rule file: it starts with `apiVersion: {API_VERSION}` and holds `rules:`")
        return Defaults(), {}
    for path in list(_not_built(value, place)):
        _remove(value, path)
    while True:
        try:
            file = FileShape.model_validate(value)
        except ValidationError as found:
            errors = found.errors(include_url=False)
            for error in errors:
                _complain(error, place)
            if not _leave_out(value, errors):
                return Defaults(), {}
        else:
            return file.defaults, dict(file.rules)


def _leave_out(value: dict[str, Any], errors: list[ErrorDetails]) -> bool:
    """Take out what is wrong; False when nothing is left to read."""
    for error in errors:
        path = _path(error)
        if error["type"] == "extra_forbidden":
            _remove(value, path)
        elif path == ("apiVersion",):
            value["apiVersion"] = API_VERSION
        else:
            _remove(value, path[:2] if path[:1] == ("rules",) else path[:1])
    return bool(value.get("rules"))


def _not_built(value: dict[str, Any], place: Place) -> Iterator[Path]:
    rules = value.get("rules")
    for name, rule in rules.items() if isinstance(rules, dict) else ():
        for verb, instead in NOT_BUILT.items():
            key, _, word = verb.partition("=")
            for path, found in _find(rule, tuple(key.split(".")), ("rules", name)):
                if word and found != word:
                    continue
                last = key.rpartition(".")[2]
                what = f"`{last}: {word}`" if word else f"`{last}`"
                place.at(*path).wrong(f"{what} is not built yet: {instead}")
                yield path
    defaults = value.get("defaults")
    if isinstance(defaults, dict) and defaults.get("mode") == "approve":
        place.at("defaults", "mode").wrong(f"`mode: approve` is not built yet: {NOT_BUILT['mode=approve']}")
        yield ("defaults", "mode")


def _find(value: Any, keys: tuple[str, ...], at: Path) -> Iterator[tuple[Path, Any]]:
    """The value below `a.b` or `a[].b`, with its path."""
    if not keys:
        yield at, value
        return
    key = keys[0].removesuffix("[]")
    if not isinstance(value, dict) or key not in value:
        return
    if keys[0] == key:
        yield from _find(value[key], keys[1:], (*at, key))
    elif isinstance(value[key], list):
        for index, item in enumerate(value[key]):
            yield from _find(item, keys[1:], (*at, key, index))


def _remove(value: Any, path: Path) -> None:
    for step in path[:-1]:
        if isinstance(value, list) and isinstance(step, int):
            value = value[step]
        else:
            value = value.get(step) if isinstance(value, dict) else None
    if isinstance(value, dict):
        value.pop(path[-1], None)


def _path(error: ErrorDetails) -> Path:
    return tuple(step for step in error["loc"] if step != "[key]")


def _complain(error: ErrorDetails, place: Place) -> None:
    path, kind = _path(error), error["type"]
    here = place.at(*path)
    if kind == "missing":
        place.at(*path[:-1]).wrong(f"`{path[-1]}` is missing: {_description(path)}")
    elif kind == "extra_forbidden":
        allowed = _allowed(path[:-1])
        here.wrong(f"unknown key `{path[-1]}`{instead_of(str(path[-1]), allowed, 'allowed are')}")
    elif "[key]" in error["loc"]:
        here.wrong(f"`{path[-1]}` {_KEYS['lookup' if 'lookup' in path else 'rules']}")
    elif kind == "string_type":
        with_unit = _UNITS.get(path[-1])
        here.wrong(f"needs a unit, e.g. {with_unit}" if with_unit else _not_text(error["input"]))
    elif kind == "literal_error":
        here.wrong(f"must be {error['ctx']['expected']}")
    elif kind == "value_error":
        here.wrong(str(error["ctx"]["error"]))
    else:
        message = _MESSAGES.get(kind)
        here.wrong(message.format(**error.get("ctx", {})) if message else error["msg"])


def _not_text(value: Any) -> str:
    if value is None:
        return "is empty"
    return "must be text" if isinstance(value, dict | list) else "must be text: put it in quotes"


def _description(path: Path) -> str:
    kind: Any = FileShape
    for step in path[:-1]:
        kind = _below(kind, step)
    return str(kind.model_fields[path[-1]].description) if _is_shape(kind) else "it is needed"


def _allowed(path: Path) -> list[str]:
    """The keys that the shape at the path has."""
    kind: Any = FileShape
    for step in path:
        kind = _below(kind, step)
    return [field.alias or name for name, field in kind.model_fields.items()] if _is_shape(kind) else []


def _below(kind: Any, step: str | int) -> Any:
    if _is_shape(kind):
        fields = {field.alias or name: field.annotation for name, field in kind.model_fields.items()}
        return _without_none(fields.get(str(step)))
    if get_origin(kind) in (dict, list, Mapping):
        return _without_none(get_args(kind)[-1])
    return None


def _without_none(kind: Any) -> Any:
    members = [member for member in get_args(kind) if member is not type(None)]
    return members[0] if type(None) in get_args(kind) and members else kind


def _is_shape(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)
