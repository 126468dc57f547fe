"""The words of a rule: what `load` makes of a file, and everything else here reads. Frozen values without behaviour.

The YAML's shape stands in `grammar`; here nothing is optional that a default fills, and every expression is compiled.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Any

from wcmatch import glob

from triggers.event import Event
from triggers.rules.expression import Expression
from triggers.rules.template import Template


class Mode(StrEnum):
    """What comes of a rule's decisions."""

    LIVE = "live"  #: they run
    OBSERVE = "observe"  #: they are made and recorded, and run nothing
    PAUSED = "paused"  #: events wait, none is dropped


class WhenBusy(StrEnum):
    """What happens when every slot of the lock is taken."""

    WAIT = "wait"  #: the run is made and waits for a slot
    SKIP = "skip"  #: the event is skipped; a firing alert is asked about again


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """An accepted event as the rules see it: with the id and the source under which it is stored."""

    event: Event
    event_id: str
    source: str
    generation: int = 0  #: more than 0: a person asked for it again
    asked: bool = False  #: a person fired the rule on it


@dataclass(frozen=True, kw_only=True)
class Filter:
    """One field of the event against globs, any of which may match."""

    name: str  #: of the event's field
    patterns: tuple[str, ...]
    matcher: "glob.WcMatcher[str]" = field(repr=False, compare=False)


@dataclass(frozen=True, kw_only=True)
class Trigger:
    """Which events a rule is about."""

    source: str
    event: str
    filters: tuple[Filter, ...]
    labels: Mapping[str, str]  #: all must be equal
    repeat: timedelta | None  #: how long after a decision an alert that still fires is put to it again; None: never


@dataclass(frozen=True, kw_only=True)
class ModelAlias:
    """Look up the model version behind an alias: gives `name, alias, version, run_id`."""

    name: str
    alias: str


@dataclass(frozen=True, kw_only=True)
class ObjectRows:
    """Count the rows of an object: gives `rows`."""

    uri: str
    version_id: str  #: "" for the only or newest one
    at_most: int  #: bytes; a larger object is not read


@dataclass(frozen=True, kw_only=True)
class GitHead:
    """The newest commit of a branch that our own event log knows of: gives `url, sha`."""

    source: str
    repository: str
    branch: str


LookupRequest = ModelAlias | ObjectRows | GitHead


@dataclass(frozen=True, kw_only=True)
class Lookup:
    """A lookup as written: its request, with the fields that hold templates beside it."""

    request: LookupRequest
    templates: Mapping[str, Template]  #: field of the request → what computes it


@dataclass(frozen=True, kw_only=True)
class Requirement:
    """A condition on the event and its lookups, and what to say when it does not hold."""

    expression: Expression
    reason: str


@dataclass(frozen=True, kw_only=True)
class RunSpec:
    """The run that a rule asks for."""

    pipeline: str  #: `name@version`, `package:path below the home` or `commit:path in the pushed commit`
    params: Mapping[str, Any]  #: strings are Templates
    secrets: Mapping[str, str]  #: parameter → where its value is (`str` of a SecretReference), read at submission only
    document: Mapping[str, Any]  #: as params, for the event document
    reads: tuple[Template, ...]
    writes: tuple[Template, ...]
    backend: str
    experiment: str  #: "": the backend's default, as with the next four
    caching: bool | None
    service_account: str
    pipeline_root: str
    time_limit: timedelta | None


@dataclass(frozen=True, kw_only=True)
class Budget:
    """So many runs in any stretch of time of this length."""

    runs: int
    per: timedelta


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How often and how many at once."""

    lock: Template | None
    max: int
    when_busy: WhenBusy
    cooldown: timedelta | None
    tries: int | None  #: runs for one trouble: then an alert that fires on is a person's
    budget: Budget | None


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the code host is told of a run that a push made."""

    status: bool
    comment: bool


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One rule, checked and compiled."""

    name: str
    description: str
    file: str
    line: int
    hash: str  #: sha256 of its content with defaults applied; not of its place
    trigger: Trigger
    lookup: Mapping[str, Lookup]
    require: tuple[Requirement, ...]
    run: RunSpec
    limits: Limits
    answer: Answer | None
    mode: Mode
    event_fields: frozenset[str] | None  #: the event's fields that its expressions mention; None: any


@dataclass(frozen=True, kw_only=True)
class RuleSet:
    """All rules that are in force together."""

    rules: Mapping[str, Rule]
    hash: str
