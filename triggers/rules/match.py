"""Whether an event is one that a rule is about.

Called by `service.flow.decide` for every rule, and by `explain`. Reads the event's fields only: conditions that need
CEL or a lookup are the rule's requirements, and are decided later.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from triggers.reason import Reason
from triggers.rules.model import Candidate, Filter, Rule


@dataclass(frozen=True)
class Match:
    """The rule is about this event."""


@dataclass(frozen=True)
class Mismatch:
    """It is not."""

    reason: Reason
    detail: str  #: names what the rule asks for, not what the event holds


def match(rule: Rule, candidate: Candidate) -> Match | Mismatch:
    """Source, type, then every filter."""
    trigger, event = rule.trigger, candidate.event
    if candidate.source != trigger.source:
        return Mismatch(Reason.OTHER_SOURCE, f"the rule listens to `{trigger.source}`")
    if event.type != trigger.event:
        return Mismatch(Reason.OTHER_TYPE, f"the rule waits for {trigger.event}")
    if event.type == "manual.fired" and event.subject != rule.name:
        return Mismatch(Reason.FILTERED, "another rule was fired")
    for one in trigger.filters:
        if one.name == "paths" and event.data.get("paths_complete") is False:
            # A large push is told with some paths left out: they may be the ones, and a needless run loses nothing.
            continue
        if not _passes(one, event.data.get(one.name)):
            return Mismatch(Reason.FILTERED, f"{one.name} does not match {' or '.join(map(repr, one.patterns))}")
    labels = event.data.get("labels")
    for name, value in trigger.labels.items():
        if not isinstance(labels, Mapping) or labels.get(name) != value:
            return Mismatch(Reason.FILTERED, f"label {name} is not {value!r}")
    return Match()


def _passes(one: Filter, value: object) -> bool:
    if isinstance(value, str):
        return value != "" and bool(one.matcher.match(value))
    if isinstance(value, list | tuple):
        return any(isinstance(item, str) and one.matcher.match(item) for item in value)
    return False
