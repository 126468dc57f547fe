"""The two pure steps: `plan` names what a rule needs to look up, `decide` says run, wait or skip, and why.

Called by `service.flow.decide` for each rule that `match`es, and by `explain`. Neither raises for any event: what
fails in a rule is a decision too. A skip or a wait may carry computed parameters: nothing is run by them.
"""

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from triggers.event import key_of, rfc3339
from triggers.reason import Reason
from triggers.rules.context import event_variable, rule_variable
from triggers.rules.expression import Context, RuleError
from triggers.rules.gate import ASK_AGAIN, History, gate, loops
from triggers.rules.model import Candidate, Lookup, LookupRequest, Mode, ObjectRows, Rule
from triggers.rules.params import misfit, missing
from triggers.rules.template import evaluate_value
from triggers.schema import Input, Inputs


class Outcome(StrEnum):
    """What a decision asks for."""

    RUN = "run"
    WAIT = "wait"
    SKIP = "skip"


@dataclass(frozen=True, kw_only=True)
class LookupProblem:
    """A lookup that gave nothing: LOOKUP_UNAVAILABLE (ask again), LOOKUP_FAILED or RULE_ERROR."""

    reason: Reason
    detail: str
    delay: timedelta = ASK_AGAIN


@dataclass(frozen=True, kw_only=True)
class Facts:
    """All that a decision rests on besides the rule and the event."""

    lookups: Mapping[str, Mapping[str, Any] | LookupProblem]  #: by the names of `plan`
    history: History
    inputs: Inputs  #: of the rule's pipeline on the rule's backend
    report_uri: str  #: where the run shall write its reports
    now: datetime
    first_decided_at: datetime | None = None  #: of a replay: when the first generation was decided


@dataclass(frozen=True, kw_only=True)
class Decision:
    """One event put to one rule, with its reason. Stored whether yes or no."""

    rule: str
    rule_hash: str
    outcome: Outcome
    reason: Reason
    detail: str
    run_key: str
    as_of: str  #: RFC 3339: the instant at which the run sees the world
    ask_again_at: datetime | None = None  #: of a wait; None: when the rules change. Else when an alert is told again
    params: Mapping[str, Any] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict)  #: parameter → where its value is
    document: Mapping[str, Any] = field(default_factory=dict)  #: for the event document
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    lock: str = ""  #: "" for none
    lock_max: int = 1


def plan(rule: Rule, candidate: Candidate) -> Mapping[str, LookupRequest | LookupProblem]:
    """What to look up, by name. A problem is handed to `decide` as it is. A paused rule needs nothing."""
    if rule.mode is Mode.PAUSED or not rule.lookup:
        return {}
    try:
        event = event_variable(candidate, rule.event_fields)
        context = Context({"event": event})
    except RuleError as error:
        return dict.fromkeys(rule.lookup, LookupProblem(reason=Reason.RULE_ERROR, detail=error.detail))
    return {name: _request(lookup, context, candidate) for name, lookup in rule.lookup.items()}


def lock_of(rule: Rule, candidate: Candidate) -> str:
    """The lock's name, for counting `History.busy`; "" for none, or if it cannot be computed (`decide` says so)."""
    if rule.limits.lock is None:
        return ""
    try:
        variables = {"event": event_variable(candidate, rule.event_fields), "rule": rule_variable(rule, None)}
        return rule.limits.lock.text(Context(variables))
    except RuleError:
        return ""


def run_key(rule_name: str, event_id: str, generation: int) -> str:
    """The short name of the one run that this decision may make: 80 bits as 16 characters of a-z and 2-7."""
    digest = bytes.fromhex(key_of(rule_name, event_id, generation))
    return base64.b32encode(digest[:10]).decode().lower()


#: After these an alert that still fires is not put to the rule again.
_LAST_WORDS = frozenset({Reason.RESOLVED, Reason.TRIES_EXHAUSTED, Reason.LOOP})


def decide(rule: Rule, candidate: Candidate, facts: Facts) -> Decision:
    """For a rule that matches the event."""
    made, repeat = _decide(rule, candidate, facts), rule.trigger.repeat
    automatic = candidate.generation == 0 and not candidate.asked
    if repeat is None or not automatic or made.outcome is Outcome.WAIT or made.reason in _LAST_WORDS:
        return made
    return replace(made, ask_again_at=facts.now + repeat)


def _decide(rule: Rule, candidate: Candidate, facts: Facts) -> Decision:
    blank = _blank(rule, candidate)
    if rule.mode is Mode.PAUSED:
        return _wait(blank, Reason.PAUSED, "", None)
    loop = loops(rule.name, facts.history.causes)
    if loop:
        return _skip(blank, Reason.LOOP, loop)
    automatic = candidate.generation == 0 and not candidate.asked
    if facts.history.resolved and candidate.event.type == "alert.firing" and automatic:
        return _skip(blank, Reason.RESOLVED, "")
    for name, found in facts.lookups.items():
        if isinstance(found, LookupProblem):
            return _without_lookup(blank, name, found, facts.now)
    if facts.inputs is None:
        return _wait(blank, Reason.PIPELINE_UNAVAILABLE, "", facts.now + ASK_AGAIN)
    if isinstance(facts.inputs, str):
        return _skip(blank, Reason.PIPELINE_UNKNOWN, facts.inputs)
    try:
        return _decide_by_expressions(rule, candidate, facts, facts.inputs, blank)
    except RuleError as error:
        return _skip(blank, Reason.RULE_ERROR, error.detail)


def _decide_by_expressions(
    rule: Rule, candidate: Candidate, facts: Facts, inputs: Mapping[str, Input], blank: Decision
) -> Decision:
    variables = {
        "event": event_variable(candidate, rule.event_fields),
        "lookup": facts.lookups,
        "rule": rule_variable(rule, facts.history.last_success),
    }
    context = Context(variables)
    for requirement in rule.require:
        if requirement.expression.evaluate(context) is not True:
            return _skip(blank, Reason.REQUIREMENT, requirement.reason)
    context.add("run", {"key": blank.run_key, "decided_at": rfc3339(facts.first_decided_at or facts.now)})
    params = _params(rule, blank, facts.report_uri, inputs, context)
    given = dict.fromkeys(rule.run.secrets, "") | params
    complaints = [f"{name} {bad}" for name, value in given.items() if (bad := misfit(name, value, inputs))]
    complaints += [f"{name} is missing" for name in missing(given, inputs)]
    if complaints:
        return _skip(blank, Reason.BAD_PARAMETER, "; ".join(complaints))
    context.add("params", params)
    wanted = replace(
        blank,
        params=params,
        secrets=rule.run.secrets,
        document={name: evaluate_value(value, context) for name, value in rule.run.document.items()},
        as_of=params.get("as_of", blank.as_of),
        reads=tuple(template.text(context) for template in rule.run.reads),
        writes=tuple(template.text(context) for template in rule.run.writes),
        lock=rule.limits.lock.text(context) if rule.limits.lock else "",
        lock_max=rule.limits.max,
    )
    if rule.mode is Mode.OBSERVE:
        return _skip(wanted, Reason.OBSERVED, "")
    return _by_limits(wanted, rule, candidate, facts)


def _by_limits(wanted: Decision, rule: Rule, candidate: Candidate, facts: Facts) -> Decision:
    if candidate.generation > 0:  # a person asked: no cooldown, and a busy lock is waited for
        return replace(wanted, outcome=Outcome.RUN, reason=Reason.REPLAYED)
    patient = candidate.event.type == "alert.firing"
    held = gate(rule.limits, facts.history, facts.now, patient=patient, asked=candidate.asked)
    if held is None:
        return replace(wanted, outcome=Outcome.RUN, reason=Reason.MATCHED)
    if held.ask_again_at is None:
        return _skip(wanted, held.reason, held.detail)
    return _wait(wanted, held.reason, held.detail, held.ask_again_at)


def _params(
    rule: Rule, blank: Decision, report_uri: str, inputs: Mapping[str, Input], context: Context
) -> dict[str, Any]:
    ours = {"run_key": blank.run_key, "report_uri": report_uri, "as_of": blank.as_of}
    ours |= {"event_uri": f"{report_uri}/event/event.json"}  # below the reports, where no report is looked for
    passed = {name: value for name, value in ours.items() if name in inputs}
    return passed | {name: evaluate_value(value, context) for name, value in rule.run.params.items()}


def _request(lookup: Lookup, context: Context, candidate: Candidate) -> LookupRequest | LookupProblem:
    try:
        texts = {name: template.text(context) for name, template in lookup.templates.items()}
    except RuleError as error:
        return LookupProblem(reason=Reason.RULE_ERROR, detail=error.detail)
    written: Any = lookup.request
    request: LookupRequest = replace(written, **texts)
    if isinstance(request, ObjectRows) and request.uri == candidate.event.data.get("object"):
        return replace(request, version_id=str(candidate.event.data.get("version_id", "")))
    return request


def _without_lookup(blank: Decision, name: str, problem: LookupProblem, now: datetime) -> Decision:
    detail = f"{name}: {problem.detail}"
    if problem.reason is Reason.LOOKUP_UNAVAILABLE:
        return _wait(blank, problem.reason, detail, now + problem.delay)
    return _skip(blank, problem.reason, detail)


def _blank(rule: Rule, candidate: Candidate) -> Decision:
    return Decision(
        rule=rule.name,
        rule_hash=rule.hash,
        outcome=Outcome.SKIP,
        reason=Reason.RULE_ERROR,
        detail="",
        run_key=run_key(rule.name, candidate.event_id, candidate.generation),
        as_of=rfc3339(candidate.event.time),
    )


def _skip(decision: Decision, reason: Reason, detail: str) -> Decision:
    return replace(decision, outcome=Outcome.SKIP, reason=reason, detail=detail or reason.text)


def _wait(decision: Decision, reason: Reason, detail: str, again: datetime | None) -> Decision:
    return replace(decision, outcome=Outcome.WAIT, reason=reason, detail=detail or reason.text, ask_again_at=again)
