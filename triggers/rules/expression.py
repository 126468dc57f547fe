"""CEL expressions: compiled when a rule file loads, evaluated on every event.

`template` and `build` make them, `decision` and `explain` evaluate them. With `functions` the only file that knows
the CEL library. An expression that fails raises RuleError, whose text names the expression and never what the event
holds.
"""

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import cel

from triggers.event import rfc3339
from triggers.rules.functions import CALLABLE, FUNCTIONS, MAX_ITEMS
from triggers.rules.place import near
from triggers.rules.scan import Mentions, mentions

MAX_SOURCE = 1_000  #: bytes of one expression
MAX_DEPTH = 40  #: of what an expression sees
_TYPE_NAMES = frozenset({"int", "uint", "double", "string", "bool", "bytes", "list", "map", "null_type", "type"})
_I64 = 1 << 63

# The library logs a failing function's message; ours reach the decision, so nothing is lost.
logging.getLogger("cel").addHandler(logging.NullHandler())
logging.getLogger("cel").propagate = False


class ExpressionError(Exception):
    """The text is no expression that a rule may hold; the message says why and what to do."""


class RuleError(Exception):
    """An expression failed on an event. `by_value` when other events may well pass, as with a missing label."""

    def __init__(self, detail: str, *, by_value: bool = False) -> None:
        self.detail = detail
        self.by_value = by_value
        super().__init__(detail)


class Context:
    """What an expression sees. Made once per rule and event; building it checks the limits on lists."""

    def __init__(self, variables: Mapping[str, Any]) -> None:
        self._cel = cel.Context({}, dict(FUNCTIONS))
        for name, value in variables.items():
            self.add(name, value)

    def add(self, name: str, value: Any) -> None:
        """One more variable, for what is evaluated from here on."""
        visible = _visible(value, name)
        try:
            self._cel.add_variable(name, visible)
        except Exception as error:  # half a character, or a type that the library does not have
            raise RuleError(f"`{name}` holds what an expression cannot see", by_value=True) from error

    def run(self, program: cel.Program) -> Any:
        """The program's value as the library gives it."""
        return program.execute(self._cel)


@dataclass(frozen=True)
class Expression:
    """One CEL expression, compiled, with what its text mentions."""

    source: str
    mentions: Mentions
    _program: cel.Program = field(repr=False, compare=False)

    @classmethod
    def parse(cls, source: str) -> "Expression":
        """Compile, or raise ExpressionError."""
        if len(source.encode("utf-8", "surrogatepass")) > MAX_SOURCE:
            raise ExpressionError(f"longer than {MAX_SOURCE} bytes: compute less in the rule, more in the pipeline")
        said = mentions(source)
        if said.nested:
            raise ExpressionError(f"{said.nested}: its cost has no bound; use one macro after the other")
        for name in said.calls:
            if name not in CALLABLE:
                raise ExpressionError(f"there is no function `{name}`{near(name, CALLABLE)}")
        try:
            program = cel.compile(source)
        except ValueError as error:
            raise ExpressionError(f"not CEL: {_syntax(error)}") from error
        return cls(source, said, program)

    def roots(self) -> frozenset[str]:
        """The variables that it needs."""
        return frozenset(path[0] for path in self.mentions.paths) - _TYPE_NAMES

    def evaluate(self, context: Context) -> Any:
        """Its value as plain data, or RuleError."""
        try:
            return plain(context.run(self._program))
        except RuleError as error:
            raise RuleError(f"`{self.source}`: {error.detail}", by_value=error.by_value) from error
        except Exception as error:
            why, by_value = _why(error, self.source)
            raise RuleError(f"`{self.source}`: {why}", by_value=by_value) from error
        except BaseException as error:
            if type(error).__name__ != "PanicException":  # a panic of the Rust side derives from BaseException
                raise
            raise RuleError(f"`{self.source}`: the expression library failed") from error


def plain(value: Any) -> Any:
    """A result of the library as JSON-like data: a time becomes RFC 3339 text; bytes and durations are refused."""
    if isinstance(value, cel.OptionalValue):
        return plain(value.value()) if value.has_value() else None
    if isinstance(value, datetime):
        return rfc3339(value)
    if isinstance(value, timedelta | bytes):
        raise RuleError(f"gives a {'duration' if isinstance(value, timedelta) else 'bytes value'}; make it a string")
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise RuleError("gives a map with keys that are not strings")
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value


def _visible(value: Any, where: str, depth: int = 0) -> Any:
    """A copy in the library's types, or RuleError where it is larger than an expression may see."""
    if isinstance(value, Mapping | list | tuple):
        if len(value) > MAX_ITEMS or depth > MAX_DEPTH:
            how = f"nested deeper than {MAX_DEPTH}" if depth > MAX_DEPTH else f"longer than {MAX_ITEMS} items"
            raise RuleError(f"`{where}` is {how}: an expression may not see it", by_value=True)
        if isinstance(value, Mapping):
            inside = {} if depth else {key: f"{where}.{key}" for key in value}  # deeper keys are payload
            return {str(key): _visible(item, inside.get(key, where), depth + 1) for key, item in value.items()}
        return [_visible(item, where, depth + 1) for item in value]
    if isinstance(value, int) and not -_I64 <= value < _I64:
        raise RuleError(f"`{where}` is no 64-bit integer", by_value=True)
    return value


def _why(error: Exception, source: str) -> tuple[str, bool]:
    """What went wrong without what it went wrong on, and whether the value is to blame."""
    text = str(error)
    if isinstance(error, KeyError):
        key = str(error.args[0]) if error.args else ""
        return (f"there is no `{key}`" if key and key in source else "a key is missing"), True
    if isinstance(error, IndexError):
        return "an index is outside its list", True
    if isinstance(error, ArithmeticError):
        return "division by zero" if isinstance(error, ZeroDivisionError) else "a number is out of range", True
    if isinstance(error, TypeError):
        return "the types do not fit: CEL never mixes int, double and string; use int(), double() or string()", False
    if text.startswith("Undefined variable or function: "):
        return f"there is no {text.split(': ')[1].split('.', maxsplit=1)[0]}", False
    if text.startswith("Function "):
        name = text.split("'")[1]
        wrong_type = "failed: TypeError" in text
        return f"`{name}` refuses its arguments{': wrong type or number' if wrong_type else ''}", not wrong_type
    return "the expression cannot be evaluated", False


def _syntax(error: ValueError) -> str:
    """The parser's first complaint, without its drawing and its list of tokens."""
    text = str(error)
    at = text.find("ERROR: <input>:")
    if at < 0 or "Recursion limit" in text:
        return "nested too deep" if at >= 0 else "cannot be parsed"
    place, _, complaint = text[at + len("ERROR: <input>:") :].split("\n", 1)[0].partition(": ")
    complaint = complaint.removeprefix("Syntax error: ").split(" expecting ")[0].replace("'<EOF>'", "end")
    complaint = re.sub("(mismatched|extraneous|no viable alternative at) input", "unexpected", complaint)
    return f"{complaint} at character {place.rpartition(':')[2]}"
