"""A rule's expressions evaluated on its event type's sample, and the parameters held against the pipeline's inputs.

Called by `check` with the places whose names are right. A failure that other events may not have (a label that the
sample lacks) is a warning; wrong types are a problem.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from triggers.rules.context import RESERVED, SAMPLE_RUN_KEY, SAMPLE_TIME, sample_event, sample_lookups
from triggers.rules.expression import Context, Expression, RuleError
from triggers.rules.model import Rule
from triggers.rules.params import misfit, unsafe
from triggers.rules.sites import Site
from triggers.schema import EventSchema, Input

_LAST_SUCCESS = ("rule", "last_success")
_NEVER = (
    ", as long as the rule has never succeeded: `rule.last_success` is empty then; ask `rule.last_success == ''` first"
)


def evaluate_samples(sites: list[Site], rule: Rule, schema: EventSchema, declared: Mapping[str, Input] | None) -> None:
    """Say what fails; once more without a last success where an expression asks for it."""
    failed = _evaluate(sites, _context(rule, schema, SAMPLE_TIME), declared, "")
    again = [site for site in sites if site not in failed and _LAST_SUCCESS in _paths(site)]
    if again:
        _evaluate(again, _context(rule, schema, ""), declared, _NEVER)


def _context(rule: Rule, schema: EventSchema, last_success: str) -> Context:
    return Context(
        {
            "event": sample_event(rule, schema),
            "lookup": sample_lookups(rule),
            "rule": {"name": rule.name, "last_success": last_success},
            "run": {"key": SAMPLE_RUN_KEY, "decided_at": SAMPLE_TIME},
        }
    )


def _evaluate(sites: list[Site], context: Context, declared: Mapping[str, Input] | None, when: str) -> list[Site]:
    """The sites that failed."""
    params: dict[str, Any] = dict.fromkeys(RESERVED, SAMPLE_TIME)
    failed: list[Site] = []
    for site in sites:
        if not _computed(site, params):
            continue
        try:
            if "params" in site.roots:
                context.add("params", params)
            value = site.evaluate(context)
        except RuleError as error:
            _complain(site, error, when)
            failed.append(site)
            continue
        if site.parameter:
            params[site.parameter] = value
        for complaint in _unfit(site, value, declared):
            site.place.wrong(complaint + when)
            failed.append(site)
    return failed


def _complain(site: Site, error: RuleError, when: str) -> None:
    if when or not error.by_value:
        site.place.wrong(f"{error.detail}{when}")
    else:
        site.place.warn(
            f"{error.detail} (on the sample event). An event like that is skipped as a rule error: guard it, e.g. with "
            "`default(map, key, fallback)`"
        )


def _unfit(site: Site, value: Any, declared: Mapping[str, Input] | None) -> Iterator[str]:
    if isinstance(site.value, Expression) and not isinstance(value, bool):
        yield f"`{site.value.source}`: a requirement must be true or false"
    if site.parameter and (declared is None or site.parameter in declared):
        complaint = unsafe(value) if declared is None else misfit(site.parameter, value, declared)
        if complaint:
            yield complaint


def _computed(site: Site, params: Mapping[str, Any]) -> bool:
    """Whether every parameter that it mentions could be computed; if not, that was said already."""
    return all(path[1] in params for path in _paths(site) if path[0] == "params" and len(path) > 1)


def _paths(site: Site) -> set[tuple[str, ...]]:
    return {path for expression in site.expressions() for path in expression.mentions.paths}
