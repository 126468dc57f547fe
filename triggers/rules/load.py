"""From rule files to a RuleSet, or every problem in all of them at once.

Called by `rules check`, at start and on reload. Pure: it is handed the texts, what the sources are, and a function
that knows a pipeline's inputs. The order of work is shape → build → check for each rule, then what holds across
rules.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace

from triggers.rules.build import build
from triggers.rules.check import check
from triggers.rules.grammar import Defaults, RuleShape
from triggers.rules.model import Rule, RuleSet
from triggers.rules.place import Place
from triggers.rules.secretparams import Forbids, check_secrets, forbids_all
from triggers.rules.shape import read_shapes
from triggers.schema import Inputs, SourceFacts
from triggers.yamlfile import Document, Problem, Problems, read

InputsOf = Callable[
    [str, str], Inputs
]  #: (backend, `name@version`) → its inputs, None if unknown now, or what is wrong


def load_rules(
    files: Mapping[str, str], sources: Mapping[str, SourceFacts], inputs_of: InputsOf, forbids: Forbids = forbids_all
) -> tuple[RuleSet, list[Problem]]:
    """The rules and the warnings, or Problems. `forbids`: what the platform says of a secret for a pipeline."""
    problems: list[Problem] = []
    warnings: list[Problem] = []
    found: list[tuple[Rule, Place]] = []
    for file, text in sorted(files.items()):
        try:
            document = read(text, file)
        except Problems as error:
            problems += error.problems
            continue
        found += _rules_of(document, (problems, warnings))
    asked: dict[tuple[str, str], Inputs] = {}
    for rule, place in found:
        key = (rule.run.backend, rule.run.pipeline)
        if key not in asked:
            asked[key] = inputs_of(*key) if rule.run.pipeline else None
        check(rule, sources, asked[key], place)
        check_secrets(rule, asked[key], place.at("run", "secrets"), forbids)
    _check_across(found)
    if problems:
        raise Problems(problems)
    return rule_set({rule.name: rule for rule, _ in found}), sorted(set(warnings))


def rule_set(rules: Mapping[str, Rule]) -> RuleSet:
    """The rules with the hash of all: equal when every rule says the same, in whichever file it stands."""
    content = "\n".join(f"{name} {rule.hash}" for name, rule in sorted(rules.items()))
    return RuleSet(rules=dict(sorted(rules.items())), hash=hashlib.sha256(content.encode()).hexdigest())


def _rules_of(document: Document, complaints: tuple[list[Problem], list[Problem]]) -> list[tuple[Rule, Place]]:
    place = Place(document, (), *complaints)
    defaults, shapes = read_shapes(place)
    return [_rule_of(name, shape, defaults, place) for name, shape in shapes.items()]


def _rule_of(name: str, shape: RuleShape, defaults: Defaults, place: Place) -> tuple[Rule, Place]:
    here = replace(place, path=("rules", name))
    return build(name, shape, defaults, here), here


def _check_across(found: list[tuple[Rule, Place]]) -> None:
    names: dict[str, Place] = {}
    locks: dict[str, tuple[Rule, int]] = {}
    for rule, place in found:
        if rule.name in names:
            other = names[rule.name]
            place.wrong(f"the name is taken by the rule in {other.document.file}:{other.line}: a name is unique")
        names.setdefault(rule.name, place)
        if rule.limits.lock is None:
            continue
        first, slots = locks.setdefault(rule.limits.lock.source, (rule, rule.limits.max))
        if slots != rule.limits.max:
            place.at("limits", "max").wrong(
                f"lock `{rule.limits.lock.source}` has {rule.limits.max} here and {slots} in rule `{first.name}` "
                f"({first.file}:{first.line}): one lock has one `max` (1 where none is written)"
            )
