"""The variables that a rule's expressions see: from a real event, or from its type's sample.

Called by `decision` and `explain` with what happened, by `check` with samples when a file loads. Published: `ROOTS`.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from triggers.event import Event, rfc3339
from triggers.rules.model import Candidate, GitHead, Lookup, LookupRequest, ModelAlias, ObjectRows, Rule
from triggers.schema import EventSchema

#: What `event` has besides the fields of its type.
ENVELOPE = ("id", "type", "source", "subject", "time")
#: What a lookup gives, by the kind of its request.
LOOKUP_FIELDS: Mapping[type[LookupRequest], tuple[str, ...]] = {
    ModelAlias: ("name", "alias", "version", "run_id"),
    ObjectRows: ("rows",),
    GitHead: ("url", "sha"),
}
#: Every variable, and the fields of those that always have the same.
ROOTS: Mapping[str, tuple[str, ...]] = {
    "event": ENVELOPE,
    "lookup": (),
    "rule": ("name", "last_success"),
    "run": ("key", "decided_at"),
    "params": (),
}
#: Passed when the pipeline declares them; a rule may set only `as_of`.
RESERVED = ("run_key", "report_uri", "event_uri", "manifest_uri", "as_of")

SAMPLE_RUN_KEY = "a" * 16
SAMPLE_TIME = "2026-01-02T03:04:05.000000Z"


def event_variable(candidate: Candidate, fields: frozenset[str] | None) -> dict[str, Any]:
    """`event`, with only the fields that the rule mentions: the rest may be of any size."""
    event = candidate.event
    data = {name: value for name, value in event.data.items() if fields is None or name in fields}
    return data | _envelope(event, candidate.event_id, candidate.source)


def _envelope(event: Event, event_id: str, source: str) -> dict[str, Any]:
    values = (event_id, event.type, source, event.subject, rfc3339(event.time))
    return dict(zip(ENVELOPE, values, strict=True))


def rule_variable(rule: Rule, last_success: datetime | None) -> dict[str, Any]:
    """`rule`."""
    return {"name": rule.name, "last_success": rfc3339(last_success) if last_success else ""}


def sample_event(rule: Rule, schema: EventSchema) -> dict[str, Any]:
    """The sample of the event's type, with what the rule's trigger says for certain."""
    values = (SAMPLE_RUN_KEY, rule.trigger.event, rule.trigger.source, "sample", SAMPLE_TIME)
    sample = dict(schema.sample) | dict(zip(ENVELOPE, values, strict=True))
    for one in rule.trigger.filters:
        if len(one.patterns) == 1 and not set("*?[\\") & set(one.patterns[0]) and one.name in schema.fields:
            sample[one.name] = [one.patterns[0]] if one.name == "paths" else one.patterns[0]
    if rule.trigger.labels:
        sample["labels"] = dict(sample.get("labels", {})) | dict(rule.trigger.labels)
    return sample


def sample_lookups(rule: Rule) -> dict[str, dict[str, Any]]:
    """What each lookup might give."""
    return {name: _sample_lookup(lookup) for name, lookup in rule.lookup.items()}


def _sample_lookup(lookup: Lookup) -> dict[str, Any]:
    match lookup.request:
        case ModelAlias(name=name, alias=alias):
            return {"name": name, "alias": alias, "version": 1, "run_id": "0" * 32}
        case ObjectRows():
            return {"rows": 1000}
        case GitHead(repository=repository):
            return {"url": f"https://git.example/{repository}.git", "sha": "0" * 40}
