"""What a rule is checked against when it loads: the shape of events, and of a pipeline's inputs.

Filled by whoever knows (`triggers.sources` the events, a backend the inputs) and handed to `triggers.rules.load`, so
that neither needs the other. Plain values; the checking stands in `triggers.rules.check` and `.params`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

#: Type words of an event's field that hold nothing below them. Any other word (`list`, `map`, ...) may be looked into.
SCALARS = frozenset({"string", "int", "double", "bool", "time"})


@dataclass(frozen=True, kw_only=True)
class EventSchema:
    """What the events of one type carry."""

    fields: Mapping[str, str]  #: field → type word: string, int, double, bool, list, map
    sample: Mapping[str, Any]  #: a whole `Event.data`, as a real one would be
    texts: Mapping[str, str] = field(default_factory=dict)  #: field → what it is, for a person


@dataclass(frozen=True, kw_only=True)
class SourceFacts:
    """A configured source, as far as a rule cares."""

    type: str
    events: Mapping[str, EventSchema]  #: by event type


@dataclass(frozen=True, kw_only=True)
class Input:
    """One parameter that a pipeline declares."""

    type: str  #: KFP's word: STRING, NUMBER_INTEGER, NUMBER_DOUBLE, BOOLEAN, LIST, STRUCT
    optional: bool
    default: Any = None


#: What is known of a pipeline's inputs: them, None (its backend does not answer now), or what is wrong with the name.
Inputs = Mapping[str, Input] | None | str
