"""From a rule's shape to a Rule: units read, globs and expressions compiled, defaults applied.

Called by `load`. What does not compile is said at its place and stands as something harmless (a parameter as BROKEN),
so that the rest of the rule is still checked; `load` keeps no rule with a problem. Whether names exist (sources,
fields, parameters) is for `check`.
"""

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

from wcmatch import glob

from triggers.quantities import duration, size
from triggers.rules.expression import Expression, ExpressionError
from triggers.rules.grammar import FILTERS, SPANS, Defaults, LimitsShape, LookupShape, RuleShape, RunShape, TriggerShape
from triggers.rules.model import (
    Answer,
    Budget,
    Filter,
    GitHead,
    Limits,
    Lookup,
    LookupRequest,
    Mode,
    ModelAlias,
    ObjectRows,
    Requirement,
    Rule,
    RunSpec,
    Trigger,
    WhenBusy,
)
from triggers.rules.place import Place, instead_of, listed
from triggers.rules.template import Template, expressions_in, parse_value
from triggers.secretref import SecretReference, complaint

T = TypeVar("T")

BROKEN = object()  #: stands for a parameter that does not compile
GLOB_FLAGS = glob.GLOBSTAR | glob.DOTGLOB | glob.FORCEUNIX | glob.CASE
MAX_GLOBSTARS = 2  #: each more multiplies the cost by the key's depth: 1.5 s for three on a key of 1 kB
_PIPELINE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*@[A-Za-z0-9][A-Za-z0-9._-]*")
_DEFAULT_AT_MOST = "1GiB"
_INHERITED = ("experiment", "caching", "service_account", "pipeline_root", "time_limit")  #: from a file's `defaults`


def build(name: str, shape: RuleShape, defaults: Defaults, place: Place) -> Rule:
    """The rule; what is wrong with it goes to the place."""
    run = _run(shape.run, defaults, place.at("run"))
    rule = Rule(
        name=name,
        description=shape.description,
        file=place.document.file,
        line=place.line,
        hash=_hash(name, shape, defaults),
        trigger=_trigger(shape.trigger, place.at("trigger")),
        lookup=_lookups(shape, place.at("lookup")),
        require=_requirements(shape, place.at("require")),
        run=run,
        limits=_limits(shape.limits, place.at("limits")),
        answer=_answer(shape, place.at("answer")),
        mode=Mode(shape.mode or defaults.mode),
        event_fields=None,
    )
    _check_alerts_verbs(rule, place)
    return replace(rule, event_fields=_event_fields(rule))


def _check_alerts_verbs(rule: Rule, place: Place) -> None:
    """`repeat` and `tries` speak of an alert that still fires: nothing else goes on happening."""
    written = {("trigger", "repeat"): rule.trigger.repeat, ("limits", "tries"): rule.limits.tries}
    for path, value in written.items():
        if value is not None and rule.trigger.event != "alert.firing":
            place.at(*path).wrong(f"only alert.firing has it: {rule.trigger.event} happens once")
    if rule.trigger.repeat is not None and rule.limits.tries is None:
        place.at("trigger", "repeat").wrong(
            "needs `limits.tries`: an alert whose `resolved` got lost would start runs for ever"
        )


def _answer(shape: RuleShape, place: Place) -> Answer | None:
    if shape.answer is None:
        return None
    if not shape.trigger.event.startswith("git."):
        place.wrong(f"{shape.trigger.event} tells of no commit to answer to: only rules on git.* have it")
    if not shape.answer.status and not shape.answer.comment:
        place.wrong("neither `status` nor `comment`: leave `answer` out")
    return Answer(status=shape.answer.status, comment=shape.answer.comment)


def _hash(name: str, shape: RuleShape, defaults: Defaults) -> str:
    content = shape.model_dump(by_alias=True) | {"name": name, "mode": shape.mode or defaults.mode}
    content["run"] |= {name: _chosen(name, shape.run, defaults) for name in (*_INHERITED, "backend")}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _trigger(shape: TriggerShape, place: Place) -> Trigger:
    written = {
        name: value
        for name, value in shape.model_dump(exclude={"source", "event", "repeat"}).items()
        if value is not None
    }
    if shape.event not in FILTERS:
        place.at("event").wrong(f"rules know no event `{shape.event}`{instead_of(shape.event, FILTERS, 'they know')}")
    else:
        for name in written:
            if name not in FILTERS[shape.event]:
                place.at(name).wrong(f"is no filter of {shape.event}; it has: {listed(FILTERS[shape.event])}")
    filters = tuple(
        _filter(name, [value] if isinstance(value, str) else value, place.at(name))
        for name, value in written.items()
        if name != "labels"
    )
    repeat = _try(duration, shape.repeat.every, place.at("repeat", "every")) if shape.repeat else None
    return Trigger(source=shape.source, event=shape.event, filters=filters, labels=shape.labels or {}, repeat=repeat)


def _filter(name: str, patterns: list[str], place: Place) -> Filter:
    for pattern in patterns:
        if pattern.split("/").count("**") > MAX_GLOBSTARS:
            place.wrong(f"more than {MAX_GLOBSTARS} `**` in one glob: matching it takes too long")
            return _filter(name, ["**"], place)
        if "${" in pattern:
            place.wrong("a filter is a glob, not an expression: compare under `require`")
    return Filter(name=name, patterns=tuple(patterns), matcher=glob.compile(patterns, flags=GLOB_FLAGS))


def _lookups(shape: RuleShape, place: Place) -> dict[str, Lookup]:
    found = {name: _lookup(lookup, place.at(name)) for name, lookup in shape.lookup.items()}
    return {name: lookup for name, lookup in found.items() if lookup is not None}


def _lookup(shape: LookupShape, place: Place) -> Lookup | None:
    kinds = [kind for kind in ("mlflow_model", "object_rows", "git_head") if getattr(shape, kind) is not None]
    if len(kinds) != 1:
        place.wrong("a lookup is exactly one of `mlflow_model` (with `alias`), `object_rows`, `git_head`")
        return None
    if (shape.alias is not None) != (kinds == ["mlflow_model"]):
        place.wrong("`mlflow_model` and `alias` go together: which model, and which of its versions")
        return None
    if shape.at_most is not None and kinds != ["object_rows"]:
        place.at("at_most").wrong("only `object_rows` has it")
        return None
    request, texts = _request(shape, place)
    templates = {name: _template(text, place.at(key)) for name, (key, text) in texts.items()}
    return Lookup(request=request, templates=templates)


def _request(shape: LookupShape, place: Place) -> tuple[LookupRequest, dict[str, tuple[str, str]]]:
    """The request as written, and which of its fields are templates: field → (key in the file, text)."""
    if shape.mlflow_model is not None and shape.alias is not None:
        texts = {"name": ("mlflow_model", shape.mlflow_model), "alias": ("alias", shape.alias)}
        return ModelAlias(name=shape.mlflow_model, alias=shape.alias), texts
    if shape.git_head is not None:
        head = shape.git_head
        request = GitHead(source=head.source, repository=head.repository, branch=head.branch)
        return request, {"repository": ("git_head", head.repository), "branch": ("git_head", head.branch)}
    at_most = _try(size, shape.at_most or _DEFAULT_AT_MOST, place.at("at_most"))
    uri = shape.object_rows or ""
    return ObjectRows(uri=uri, version_id="", at_most=at_most or 0), {"uri": ("object_rows", uri)}


def _requirements(shape: RuleShape, place: Place) -> tuple[Requirement, ...]:
    return tuple(
        Requirement(
            expression=_try(Expression.parse, one.expr, place.at(index, "expr")) or Expression.parse("true"),
            reason=one.reason,
        )
        for index, one in enumerate(shape.require)
    )


def _run(shape: RunShape, defaults: Defaults, place: Place) -> RunSpec:
    time_limit = _chosen("time_limit", shape, defaults)
    return RunSpec(
        pipeline=_reference(shape, place),
        params={name: _param(value, place.at("params", name)) for name, value in shape.params.items()},
        secrets=_secrets(shape, place.at("secrets")),
        document={name: _param(value, place.at("document", name)) for name, value in shape.document.items()},
        reads=_templates(shape.reads, place.at("reads")),
        writes=_templates(shape.writes, place.at("writes")),
        backend=shape.backend or defaults.backend,
        experiment=_chosen("experiment", shape, defaults) or "",
        caching=_chosen("caching", shape, defaults),
        service_account=_chosen("service_account", shape, defaults) or "",
        pipeline_root=_chosen("pipeline_root", shape, defaults) or "",
        time_limit=_try(duration, time_limit, place.at("time_limit")) if time_limit is not None else None,
    )


def _secrets(shape: RunShape, place: Place) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in shape.secrets.items():
        if said := complaint(value):
            place.at(name).wrong(said)
        elif name in shape.params:
            place.at(name).wrong("stands under `params` too: leave it out there")
        elif ".." in str(value.get("file", "")).split("/"):
            place.at(name).wrong("is no path for a secret: write it without `..`")
        else:
            found[name] = str(SecretReference(**value))
    return found


def _chosen(name: str, shape: RunShape, defaults: Defaults) -> Any:
    """The rule's own word, else the file's; None leaves it to the backend's settings."""
    own = getattr(shape, name)
    return getattr(defaults, name) if own is None else own


def _reference(shape: RunShape, place: Place) -> str:
    """What runs, in one word (`model.RunSpec.pipeline`); "" when it is not said well."""
    kinds = {"pipeline": shape.pipeline, "package": shape.package, "package_from_commit": shape.package_from_commit}
    given = [(key, value) for key, value in kinds.items() if value is not None]
    if len(given) != 1:
        place.wrong(f"names what to run by exactly one of {listed(kinds)}, e.g. `pipeline: name@version`")
        return ""
    [(key, value)] = given
    if key == "pipeline":
        return _named(value, place.at(key))
    if value.startswith(("/", "~")) or ".." in value.split("/") or "${" in value:
        root = "home" if key == "package" else "repository"
        place.at(key).wrong(f"is no path below the {root}: relative, without `..` and expressions")
        return ""
    return f"package:{value}" if key == "package" else f"commit:{value}"


def _named(pipeline: str, place: Place) -> str:
    if "@" not in pipeline:
        place.wrong(f"names no version: write `{pipeline}@v1`, or `{pipeline}@latest` for whichever is newest")
        return ""
    if not _PIPELINE.fullmatch(pipeline):
        place.wrong("is no `name@version` of letters, digits, `.`, `_` and `-`; it takes no expression")
        return ""
    return pipeline


def _param(value: Any, place: Place) -> Any:
    parsed = _try(lambda text: [parse_value(text)], value, place)
    return parsed[0] if parsed else BROKEN


def _limits(shape: LimitsShape, place: Place) -> Limits:
    if shape.lock is None:
        for key in ("max", "when_busy"):
            if getattr(shape, key) is not None:
                place.at(key).wrong("says nothing without a `lock`: name one, e.g. `lock: train/income-classifier`")
    return Limits(
        lock=_template(shape.lock, place.at("lock")) if shape.lock is not None else None,
        max=shape.max or 1,
        when_busy=WhenBusy(shape.when_busy or "wait"),
        cooldown=_try(duration, shape.cooldown, place.at("cooldown")) if shape.cooldown is not None else None,
        tries=shape.tries,
        budget=Budget(runs=shape.budget.runs, per=SPANS[shape.budget.per]) if shape.budget else None,
    )


def _templates(texts: list[str], place: Place) -> tuple[Template, ...]:
    return tuple(_template(text, place.at(index)) for index, text in enumerate(texts))


def _template(text: str, place: Place) -> Template:
    return _try(Template.parse, text, place) or Template("", ())


def _try(make: Callable[[Any], T], value: Any, place: Place) -> T | None:
    try:
        return make(value)
    except (ExpressionError, ValueError) as error:
        place.wrong(str(error))
        return None


def all_expressions(rule: Rule) -> list[Expression]:
    """Every expression of the rule."""
    computed = (*rule.run.params.values(), *rule.run.document.values())
    templates: list[Any] = [*computed, *rule.run.reads, *rule.run.writes, rule.limits.lock]
    templates += [template for lookup in rule.lookup.values() for template in lookup.templates.values()]
    found = [requirement.expression for requirement in rule.require]
    return found + [expression for template in templates for expression in expressions_in(template)]


def _event_fields(rule: Rule) -> frozenset[str] | None:
    """The event's fields that its expressions mention; None where one takes the event as a whole."""
    paths = [path for expression in all_expressions(rule) for path in expression.mentions.paths if path[0] == "event"]
    return None if any(len(path) == 1 for path in paths) else frozenset(path[1] for path in paths)
