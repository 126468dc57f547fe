"""The places in a rule that hold expressions, and which variables each may use.

Called by `check` and `samples`, which go through them; the decision evaluates the same in the same order.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from triggers.rules.build import BROKEN
from triggers.rules.expression import Context, Expression
from triggers.rules.model import Rule
from triggers.rules.place import Place
from triggers.rules.template import Template, evaluate_value, expressions_in

_DECIDING = frozenset({"event", "lookup", "rule"})


@dataclass(frozen=True)
class Site:
    """A place in a rule that holds expressions."""

    place: Place
    value: Any  #: a Template, an Expression, or a parameter's value
    roots: frozenset[str]  #: what its expressions may use
    parameter: str = ""
    typed: bool = False  #: of a parameter or a value of the event document; every other template makes text

    def expressions(self) -> list[Expression]:
        """The expressions in it."""
        return [self.value] if isinstance(self.value, Expression) else expressions_in(self.value)

    def evaluate(self, context: Context) -> Any:
        """Its value."""
        if isinstance(self.value, Template) and not self.typed:
            return self.value.text(context)
        return (
            self.value.evaluate(context) if isinstance(self.value, Expression) else evaluate_value(self.value, context)
        )


def sites_of(rule: Rule, place: Place) -> Iterator[Site]:
    """In the order in which they are evaluated."""
    keys = {"name": "mlflow_model", "uri": "object_rows", "repository": "git_head", "branch": "git_head"}
    if rule.limits.lock is not None:
        yield Site(place.at("limits", "lock"), rule.limits.lock, frozenset({"event", "rule"}))
    for name, lookup in rule.lookup.items():
        for field, template in lookup.templates.items():
            yield Site(place.at("lookup", name, keys.get(field, field)), template, frozenset({"event"}))
    for index, requirement in enumerate(rule.require):
        yield Site(place.at("require", index, "expr"), requirement.expression, _DECIDING)
    run = place.at("run")
    for name, value in rule.run.params.items():
        if value is not BROKEN:
            yield Site(run.at("params", name), value, _DECIDING | {"run"}, parameter=name, typed=True)
    for name, value in rule.run.document.items():
        if value is not BROKEN:
            yield Site(run.at("document", name), value, _DECIDING | {"run", "params"}, typed=True)
    for key, templates in (("reads", rule.run.reads), ("writes", rule.run.writes)):
        for index, template in enumerate(templates):
            yield Site(run.at(key, index), template, _DECIDING | {"run", "params"})
