"""What every rule makes of one event, as plain data: `rules explain EVENT.json`.

Called by the command line and the API. Says the same as a decision would, as it is `plan` and `decide` that are
asked; the caller brings the facts, or takes `sample_facts` where it has no world to look into.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any

from triggers.event import rfc3339
from triggers.rules.context import sample_lookups
from triggers.rules.decision import Decision, Facts, LookupProblem, decide, plan
from triggers.rules.gate import History
from triggers.rules.match import Mismatch, match
from triggers.rules.model import Candidate, LookupRequest, Rule, RuleSet
from triggers.schema import Inputs

Planned = Mapping[str, LookupRequest | LookupProblem]
FactsOf = Callable[[Rule, Planned], Facts]


def explain(rules: RuleSet, candidate: Candidate, facts_of: FactsOf) -> list[dict[str, Any]]:
    """One entry a rule, in name order; `facts_of` is asked for the rules that match."""
    return [_entry(rule, candidate, facts_of) for rule in rules.rules.values()]


def sample_facts(rule: Rule, planned: Planned, inputs: Inputs, now: datetime) -> Facts:
    """Facts without a world: lookups as they might be, no run yet."""
    samples = sample_lookups(rule)
    lookups = {name: one if isinstance(one, LookupProblem) else samples[name] for name, one in planned.items()}
    return Facts(lookups=lookups, history=History(), inputs=inputs, report_uri="", now=now)


def _entry(rule: Rule, candidate: Candidate, facts_of: FactsOf) -> dict[str, Any]:
    entry: dict[str, Any] = {"rule": rule.name, "file": rule.file, "line": rule.line, "mode": str(rule.mode)}
    matched = match(rule, candidate)
    if isinstance(matched, Mismatch):
        return entry | {"matched": False, "reason": str(matched.reason), "detail": matched.detail}
    planned = plan(rule, candidate)
    facts = facts_of(rule, planned)
    lookups = {name: _plain_lookup(one) for name, one in facts.lookups.items()}
    asked = {name: {"kind": type(one).__name__} | asdict(one) for name, one in planned.items() if _is_request(one)}
    return (
        entry | {"matched": True, "asked": asked, "lookups": lookups} | _plain_decision(decide(rule, candidate, facts))
    )


def _is_request(one: LookupRequest | LookupProblem) -> bool:
    return not isinstance(one, LookupProblem)


def _plain_lookup(found: Mapping[str, Any] | LookupProblem) -> dict[str, Any]:
    if isinstance(found, LookupProblem):
        return {"reason": str(found.reason), "detail": found.detail}
    return dict(found)


def _plain_decision(decision: Decision) -> dict[str, Any]:
    again = decision.ask_again_at
    return {
        "outcome": str(decision.outcome),
        "reason": str(decision.reason),
        "detail": decision.detail,
        "ask_again_at": rfc3339(again) if again else None,
        "params": dict(decision.params),
        "secrets": dict(decision.secrets),
        "reads": list(decision.reads),
        "writes": list(decision.writes),
        "lock": decision.lock,
        "lock_max": decision.lock_max,
        "run_key": decision.run_key,
        "as_of": decision.as_of,
    }
