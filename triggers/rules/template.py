"""Values of a rule file with `${…}` in them.

`build` parses them when the file loads, `params` and `decision` evaluate them. A string that is exactly one `${…}`
keeps the type of its value; any other text becomes a string. `$${` stands for the two characters.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from triggers.rules.expression import Context, Expression, ExpressionError, RuleError
from triggers.rules.scan import closing_brace


@dataclass(frozen=True)
class Template:
    """Text with `${…}` in it. Exactly one `${…}` keeps its value's type; anything else makes a string."""

    source: str
    parts: tuple[str | Expression, ...]

    @classmethod
    def parse(cls, source: str) -> "Template":
        """Cut at every `${`; `$${` is a literal `${`."""
        parts: list[str | Expression] = []
        literal, index = "", 0
        while index < len(source):
            if source.startswith("$${", index):
                literal, index = literal + "${", index + 3
            elif source.startswith("${", index):
                end = closing_brace(source, index + 2)
                if end < 0:
                    raise ExpressionError("a `${` has no `}` that ends it; write `$${` for the two characters")
                parts += [literal] if literal else []
                parts.append(Expression.parse(source[index + 2 : end]))
                literal, index = "", end + 1
            else:
                literal, index = literal + source[index], index + 1
        return cls(source, (*parts, literal) if literal else tuple(parts))

    def expressions(self) -> tuple[Expression, ...]:
        """The expressions in it."""
        return tuple(part for part in self.parts if isinstance(part, Expression))

    def evaluate(self, context: Context) -> Any:
        """The typed value, or the text."""
        if len(self.parts) == 1 and isinstance(self.parts[0], Expression):
            return self.parts[0].evaluate(context)
        return self.text(context)

    def text(self, context: Context) -> str:
        """Always text."""
        return "".join(part if isinstance(part, str) else _as_text(part, context) for part in self.parts)


def parse_value(value: Any) -> Any:
    """Any YAML value with each of its strings compiled into a Template."""
    if isinstance(value, str):
        return Template.parse(value)
    if isinstance(value, Mapping):
        return {key: parse_value(item) for key, item in value.items()}
    return [parse_value(item) for item in value] if isinstance(value, list) else value


def evaluate_value(value: Any, context: Context) -> Any:
    """The YAML value back, with each Template evaluated."""
    if isinstance(value, Template):
        return value.evaluate(context)
    if isinstance(value, Mapping):
        return {key: evaluate_value(item, context) for key, item in value.items()}
    return [evaluate_value(item, context) for item in value] if isinstance(value, list) else value


def expressions_in(value: Any) -> list[Expression]:
    """Every expression in a value made by `parse_value`."""
    if isinstance(value, Template):
        return list(value.expressions())
    items = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    return [expression for item in items for expression in expressions_in(item)]


def _as_text(expression: Expression, context: Context) -> str:
    value = expression.evaluate(context)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e16:
        return str(int(value))
    if isinstance(value, int | float):
        return str(value)
    kind = "null" if value is None else "a map" if isinstance(value, Mapping) else "a list"
    raise RuleError(f"`{expression.source}`: gives {kind}, which cannot be part of a text")
