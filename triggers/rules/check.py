"""Whether a rule's names exist and its values fit: sources, event fields, lookups, the pipeline's inputs.

Called by `load` on every built rule with what the sources and the backend say. What the names cannot tell, `samples`
finds by evaluating the expressions.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from triggers.rules.build import BROKEN
from triggers.rules.context import ENVELOPE, LOOKUP_FIELDS, RESERVED, ROOTS
from triggers.rules.grammar import FILTERS
from triggers.rules.model import GitHead, Rule
from triggers.rules.params import misfit, missing
from triggers.rules.place import Place, instead_of, listed
from triggers.rules.samples import evaluate_samples
from triggers.rules.sites import Site, sites_of
from triggers.rules.template import expressions_in
from triggers.schema import SCALARS, EventSchema, Input, Inputs, SourceFacts
from triggers.yamlfile import Path

_OUTPUT = re.compile(r"(^|_)out(put)?s?_(.*_)?(file_?name|name|path|uri|key|prefix)$")
_OBJECT_URI = re.compile(r"(s3a?|gs|file)://")
#: An output that mentions one of these differs from event to event.
_DISTINCT = (("run", "key"), ("event", "id"), ("event", "key"), ("event", "object"), ("event", "sha"))
#: So does one that mentions all of these, or all of those.
_WHOLE_KEY = (
    frozenset({("event", "dir"), ("event", "name")}),
    frozenset({("event", "dir"), ("event", "stem"), ("event", "ext")}),
)


def check(rule: Rule, sources: Mapping[str, SourceFacts], inputs: Inputs, place: Place) -> None:
    """Say at their places what does not exist or fit."""
    schema = _schema(rule, sources, place.at("trigger"))
    _check_heads(rule, sources, place.at("lookup"))
    if isinstance(inputs, str):
        key = {"package": "package", "commit": "package_from_commit"}.get(
            rule.run.pipeline.partition(":")[0], "pipeline"
        )
        place.at("run", key).wrong(inputs)
    elif inputs is None and rule.run.pipeline.startswith("commit:"):
        if not rule.trigger.event.startswith("git."):
            place.at("run", "package_from_commit").wrong(f"{rule.trigger.event} tells of no commit to take it from")
    elif inputs is None and rule.run.pipeline:
        place.at("run", "pipeline").warn(
            f"backend `{rule.run.backend}` does not answer: the parameters are not checked until it does"
        )
    if rule.run.document and isinstance(inputs, Mapping) and "event_uri" not in inputs:
        place.at("run", "document").wrong("reaches nobody: the pipeline has no input `event_uri`, where its URI goes")
    declared = inputs if isinstance(inputs, Mapping) else None
    known = _Known(rule, schema, _passed(rule, declared))
    sound = [site for site in sites_of(rule, place) if _names_are_right(site, known)]
    _check_parameter_names(rule, declared, place.at("run"))
    if schema is not None:
        evaluate_samples(sound, rule, schema, declared)
    _warn_of_overwriting(rule, place.at("run"))


def _schema(rule: Rule, sources: Mapping[str, SourceFacts], place: Place) -> EventSchema | None:
    name, event = rule.trigger.source, rule.trigger.event
    if name not in sources:
        place.at("source").wrong(f"there is no source `{name}`{instead_of(name, sorted(sources), 'there are')}")
        return None
    source = sources[name]
    if event not in source.events and event in FILTERS:
        given = instead_of(event, sorted(source.events), "it gives")
        place.at("event").wrong(f"source `{name}` ({source.type}) gives no `{event}`{given}")
    return source.events.get(event)


def _check_heads(rule: Rule, sources: Mapping[str, SourceFacts], place: Place) -> None:
    git = sorted(name for name, facts in sources.items() if "git.push" in facts.events)
    for name, lookup in rule.lookup.items():
        if isinstance(lookup.request, GitHead) and lookup.request.source not in git:
            wanted = lookup.request.source
            place.at(name, "git_head", "source").wrong(f"`{wanted}` is no git source; there are {listed(git)}")


@dataclass(frozen=True)
class _Known:
    """What a path may start with in this rule."""

    rule: Rule
    schema: EventSchema | None
    params: frozenset[str]


def _passed(rule: Rule, declared: Mapping[str, Input] | None) -> frozenset[str]:
    """The names of the parameters that the run will get."""
    ours = frozenset(RESERVED) - {"manifest_uri"}
    return frozenset(rule.run.params) | (ours if declared is None else ours & frozenset(declared))


def _names_are_right(site: Site, known: _Known) -> bool:
    before = len(site.place.problems)
    for expression in site.expressions():
        for root in sorted(expression.roots() - site.roots):
            what = f"`{root}` is not known here" if root in ROOTS else f"there is no `{root}`"
            usable = instead_of(root, sorted(site.roots), "expressions here may use")
            site.place.wrong(f"`{expression.source}`: {what}{usable}")
        for bound in sorted(expression.mentions.variables & frozenset(ROOTS)):
            site.place.wrong(f"`{expression.source}`: `{bound}` is taken: give the macro's variable another name")
        for path in expression.mentions.paths:
            complaint = _wrong_path(path, known) if path[0] in site.roots else ""
            if complaint:
                site.place.wrong(f"`{expression.source}`: {complaint}")
    return len(site.place.problems) == before


def _wrong_path(path: tuple[str, ...], known: _Known) -> str:
    root, *rest = path
    if not rest:
        return ""
    if root == "event":
        return _wrong_event_field(rest, known.rule.trigger.event, known.schema)
    if root == "lookup":
        return _wrong_lookup_field(rest, known.rule)
    fields = known.params if root == "params" else ROOTS[root]
    return "" if rest[0] in fields else f"`{root}` has no `{rest[0]}`{instead_of(rest[0], sorted(fields), 'it has')}"


def _wrong_event_field(rest: list[str], event: str, schema: EventSchema | None) -> str:
    if schema is None:
        return ""
    fields = dict.fromkeys(ENVELOPE, "string") | dict(schema.fields)
    if rest[0] not in fields:
        return f"{event} has no `{rest[0]}`{instead_of(rest[0], sorted(fields), 'it has')}"
    if len(rest) > 1 and fields[rest[0]] in SCALARS:
        return f"`event.{rest[0]}` is {fields[rest[0]]}: there is no `{rest[1]}` in it"
    return ""


def _wrong_lookup_field(rest: list[str], rule: Rule) -> str:
    if rest[0] not in rule.lookup:
        return f"there is no lookup `{rest[0]}`{instead_of(rest[0], sorted(rule.lookup), 'there are')}"
    known = LOOKUP_FIELDS[type(rule.lookup[rest[0]].request)]
    if len(rest) > 1 and rest[1] not in known:
        return f"`lookup.{rest[0]}` has no `{rest[1]}`{instead_of(rest[1], known, 'it has')}"
    return ""


def _check_parameter_names(rule: Rule, declared: Mapping[str, Input] | None, place: Place) -> None:
    for name in RESERVED:
        if name in rule.run.params and name != "as_of":
            place.at("params", name).wrong("is set by kfp-triggers and by no rule: leave it out")
    if declared is None:
        return
    for name in rule.run.params:
        if name not in declared and (name not in RESERVED or name == "as_of"):
            place.at("params", name).wrong(misfit(name, None, declared))
    given = {*rule.run.params, *rule.run.secrets, *RESERVED} - {"manifest_uri"}
    for name in missing(dict.fromkeys(given), declared):
        more = "only `collect` makes one, and it is not built yet" if name == "manifest_uri" else "give it a value"
        place.at("params").wrong(f"`{rule.run.pipeline}` needs `{name}` ({declared[name].type}): {more}")


def _warn_of_overwriting(rule: Rule, place: Place) -> None:
    """Two events would write one object: the second run's output replaces the first's."""
    outputs: dict[Path, Any] = {
        ("params", name): value for name, value in rule.run.params.items() if _OUTPUT.search(name)
    }
    for index, template in enumerate(rule.run.writes):
        if _OBJECT_URI.match(template.source):
            outputs[("writes", index)] = template
    for path, value in outputs.items():
        if value is not BROKEN and not _differs(value, rule):
            place.at(*path).warn(
                "leaves out both the event's full key and `run.key`: the output of one event overwrites another's"
            )


def _differs(value: Any, rule: Rule) -> bool:
    """Whether two events surely give two values, also by a parameter that it mentions."""
    paths = {path for expression in expressions_in(value) for path in expression.mentions.paths}
    if any(path[:2] in _DISTINCT for path in paths) or any(parts <= paths for parts in _WHOLE_KEY):
        return True
    mentioned = [path[1] for path in paths if path[0] == "params" and len(path) > 1]
    return any(name == "run_key" or _differs(rule.run.params.get(name), rule) for name in mentioned)
