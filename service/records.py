"""What the store keeps, as frozen values: an event, its decisions, their runs, the edges between things.

Read and written through the ports in `service.ports`; shown by the CLI and the read API through `document`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from enum import StrEnum
from typing import Any

from service.lifecycle import State
from triggers.event import Event, rfc3339
from triggers.reason import Reason


class EventState(StrEnum):
    """Where an event is; every state but the first is an end."""

    ACCEPTED = "accepted"
    QUARANTINED = "quarantined"
    IGNORED = "ignored"
    UNMATCHED = "unmatched"
    DECIDED = "decided"
    DISCARDED = "discarded"  #: it was quarantined, and a person has put it away


@dataclass(frozen=True, kw_only=True)
class Accepted:
    """What became of a delivery at the door."""

    delivery_id: str
    event_ids: Sequence[str]
    new_event_ids: Sequence[str]  #: those that this delivery was the first to tell of

    @property
    def duplicate(self) -> bool:
        """All that it tells was known."""
        return not self.new_event_ids


@dataclass(frozen=True, kw_only=True)
class DeliveryRecord:
    """A stored delivery, without its body."""

    id: str
    source: str
    received_at: datetime
    headers: Mapping[str, str]
    size: int  #: bytes of the body
    event_ids: Sequence[str]
    body_hash: str = ""  #: sha256 of a body that is no longer kept
    emptied_at: datetime | None = None  #: when the body was let go of


@dataclass(frozen=True, kw_only=True)
class EventRecord:
    """A stored event."""

    id: str
    delivery_id: str
    source: str
    event: Event
    received_at: datetime
    state: EventState
    reason: str
    detail: str
    causes: Sequence[str]  #: the rules whose runs led to it, oldest first
    only_rule: str  #: set when a person fired one rule


@dataclass(frozen=True, kw_only=True)
class DecisionRecord:
    """A stored decision."""

    id: str
    event_id: str
    rule: str
    generation: int
    outcome: str
    reason: str
    detail: str
    rule_hash: str
    rule_set: str
    lookups: Mapping[str, Any]
    run_key: str
    created_at: datetime
    decided_at: datetime
    due_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """A stored run."""

    id: str
    run_key: str
    decision_id: str
    event_id: str
    rule: str
    generation: int
    state: State
    reason: str
    detail: str
    backend: str
    backend_id: str
    pipeline: str
    pipeline_version: str
    pipeline_digest: str
    experiment: str
    params: Mapping[str, Any]
    reads: Sequence[str]
    writes: Sequence[str]
    causes: Sequence[str]
    as_of: str
    lock: str
    lock_max: int
    time_limit: float
    display_name: str
    description: str
    report_uri: str
    error: str = ""
    failed_task: str = ""
    outputs: Mapping[str, Any] = field(default_factory=dict)
    created_at: datetime
    submitted_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    cancel_asked_at: datetime | None = None
    recorded_at: datetime | None = None
    due_at: datetime | None = None
    holder: str = ""  #: who works on it just now, "" for nobody
    attempts: int = 0
    subject: str = ""  #: of its event; a rule's runs on one subject are submitted in their order
    caching: bool | None = None
    service_account: str = ""
    pipeline_root: str = ""
    package: str = ""  #: digest of the compiled pipeline in the store; "": the backend knows it by name and version
    upload: bool = False  #: of a package: stored in the backend as a version first
    document: Mapping[str, Any] = field(default_factory=dict)  #: values that go by the event document
    retry_of: str = ""  #: run key of the generation before
    cancel_reason: str = ""
    cancel_sent_at: datetime | None = None  #: when its backend was first told to end it
    cancel_told_at: datetime | None = None  #: and when last
    secrets: Mapping[str, str] = field(default_factory=dict)  #: parameter → where its value is; never the value


class AnswerState(StrEnum):
    """How far the code host has been told."""

    OPEN = "open"
    DONE = "done"
    GIVEN_UP = "given_up"


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a code host is to be told of a run that a push made."""

    id: str = ""
    run_key: str
    source: str
    repository: str  #: its name as the source's configuration has it
    sha: str
    status: bool  #: by a commit status
    comment: bool  #: by a comment, at the end
    state: AnswerState = AnswerState.OPEN
    told: str = ""  #: pending: that it was submitted; status: how it ended, but not yet in the comment
    detail: str = ""  #: why it was not told yet, or never
    attempts: int = 0  #: since the last thing that was told
    created_at: datetime


@dataclass(frozen=True, kw_only=True)
class OpenRun:
    """Of a run that a backend has, what is needed at each look: there may be thousands."""

    run_key: str
    state: State
    backend: str
    backend_id: str
    time_limit: float
    created_at: datetime
    submitted_at: datetime | None
    cancel_asked_at: datetime | None
    cancel_sent_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class Double:
    """A second run in a backend under a run key that already had one."""

    run_key: str
    backend: str
    backend_id: str
    found_at: datetime
    cancelled_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Transition:
    """One move of a run."""

    run_key: str
    at: datetime
    before: str
    after: State
    reason: Reason
    detail: str


class PromotionState(StrEnum):
    """Where the move of an alias is; `asked` waits for a person, `moving` is being made, every other is an end."""

    ASKED = "asked"
    MOVING = "moving"
    DONE = "done"
    REFUSED = "refused"  #: by the gate, or by the registry
    LOST = "lost"  #: the alias was elsewhere by then, or on its way
    REJECTED = "rejected"  #: by a person


@dataclass(frozen=True, kw_only=True)
class Promotion:
    """A move of an alias of a model, made, asked for or refused: a row of the audit log."""

    id: str
    model: str
    alias: str
    from_version: int  #: where the alias was when the move was decided; 0: nowhere
    to_version: int
    action: str  #: promote or rollback
    state: PromotionState
    reason: Reason
    detail: str = ""  #: for a person: what the gate found, what a person said, what stood in the way
    by: str  #: a person, or the rule whose run it was; "" when nobody knows
    run_key: str = ""  #: the run whose verdict it is
    figures: Mapping[str, Any] = field(default_factory=dict)  #: what the gate compared
    created_at: datetime
    ended_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Edge:
    """One thing came from another: `source` was read or caused; `target` was made or is the one that read."""

    source: str
    relation: str
    target: str
    run_key: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Observation:
    """What a run found of a version of a model: how its inputs have drifted, or how good it was once labels came."""

    id: str = ""
    run_key: str
    kind: str  #: drift or quality
    model: str
    version: int
    as_of: datetime  #: the moment that it is about
    subject: str  #: URI of the file that was scored, or of the labels
    rows: int
    figures: Mapping[str, Any]  #: `coverage`; `columns`, by name, of a drift; `measures` of a quality
    created_at: datetime


class Kind(StrEnum):
    """What a dead letter is."""

    EVENT = "event"  #: quarantined
    DECISION = "decision"  #: asked time and again, and the service failed each time
    RUN = "run"  #: dead


@dataclass(frozen=True, kw_only=True)
class DeadLetter:
    """Something that stopped for good with a reason, and that nobody has yet mended or put away."""

    kind: Kind
    key: str  #: id of an event or a decision, key of a run
    event_id: str
    source: str
    rule: str  #: "" of an event
    subject: str
    reason: str
    detail: str
    at: datetime  #: when it stopped; of an event when it arrived


@dataclass(frozen=True, kw_only=True)
class DeadQuery:
    """Which dead letters; None leaves a filter out."""

    source: str | None = None
    rule: str | None = None
    reason: str | None = None
    before: datetime | None = None
    limit: int = 500  #: of each kind


@dataclass(frozen=True, kw_only=True)
class Handling:
    """What a person did about something: a row of evidence."""

    what: str  #: event, decision, run, subject or store
    key: str
    action: str  #: retried, discarded, forgotten or restored
    by: str
    why: str
    at: datetime


@dataclass(frozen=True, kw_only=True)
class Query:
    """A page of a listing; None leaves a filter out."""

    since: datetime | None = None
    until: datetime | None = None
    source: str | None = None
    rule: str | None = None
    state: str | None = None
    cursor: str | None = None
    limit: int = 50


def origin(event: Event) -> str:
    """The URI of the thing that an event tells of, as a node of lineage; "" when it has none."""
    data = event.data
    if event.type.startswith("object."):
        return str(data.get("object", ""))
    if event.type.startswith("git.") and data.get("sha"):
        return f"{data.get('clone_url') or data.get('repository', '')}/commit/{data['sha']}"
    if event.type.startswith("alert."):
        return f"alert:{data.get('fingerprint', '')}@{data.get('starts_at', '')}"
    if event.type.startswith("model."):
        promotion = data.get("promotion")
        return f"promotion:{promotion}" if promotion else f"models:/{data.get('model', '')}/{data.get('version', '')}"
    return ""


@dataclass(frozen=True, kw_only=True)
class Scan:
    """What is known of a bucket that is looked through for objects that no notification told of."""

    source: str
    bucket: str
    since: datetime  #: the first look, by the object store's clock: nothing older is an event
    mark: datetime  #: up to here the last whole scan saw everything, by the same clock
    looked_at: datetime | None = None  #: when the last one ended, whole or not, by our clock
    ended_at: datetime | None = None  #: the same of the last whole one
    seconds: float = 0.0  #: that it took
    seen: int = 0  #: objects and versions that it listed
    found: int = 0  #: events that only scans told of, in all
    problem: str = ""  #: why the last one was not whole


def document(record: Any) -> dict[str, Any]:
    """A record as JSON-ready data with stable keys, times in RFC 3339 UTC. An event's own fields come up to the top."""
    result: dict[str, Any] = {}
    for item in fields(record):
        value = getattr(record, item.name)
        if isinstance(value, Event):
            result |= {
                "type": value.type,
                "subject": value.subject,
                "time": rfc3339(value.time),
                "data": dict(value.data),
            }
        else:
            result[item.name] = rfc3339(value) if isinstance(value, datetime) else value
    return result
