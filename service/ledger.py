"""What the flow needs of the store, as Protocols: the words it keeps its promises with.

`service.store` fits them with SQL; the flow sees nothing of it. Every method may raise Temporary; each is one
transaction, durable when it returns.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Protocol

from service.lifecycle import State
from service.records import (
    Accepted,
    DecisionRecord,
    DeliveryRecord,
    Double,
    Edge,
    EventRecord,
    OpenRun,
    Query,
    RunRecord,
    Transition,
)
from triggers.event import Delivery, Reading
from triggers.reason import Reason
from triggers.rules.gate import History


@dataclass(frozen=True, kw_only=True)
class Arrival:
    """A verified delivery and what its source read in it."""

    delivery: Delivery
    headers: Mapping[str, str]  #: those worth keeping; never a credential
    reading: Reading
    only_rule: str = ""  #: set when a person fires one rule


@dataclass(frozen=True, kw_only=True)
class Claim:
    """Who takes a row, when, and until when nobody else may."""

    holder: str
    now: datetime
    until: datetime


@dataclass(frozen=True, kw_only=True)
class Rate:
    """How fast a backend may be asked to make runs, by all processes together."""

    per_second: float
    burst: int


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A decision as it is to be written, with its run if it made one."""

    rule: str
    outcome: str
    reason: Reason
    detail: str
    rule_hash: str
    rule_set: str
    lookups: Mapping[str, Any] = field(default_factory=dict)
    ask_again_at: datetime | None = None
    run: RunRecord | None = None
    package: bytes | None = None  #: what `run.package` is the digest of


@dataclass(frozen=True, kw_only=True)
class Ask:
    """One rule's turn: the history that it depends on, and how to judge on it. `judge` is pure and quick."""

    rule: str
    lock: str
    causes: Sequence[str]
    judge: Callable[[History], Judged]


class Events(Protocol):
    """Deliveries and events."""

    def accept(self, arrival: Arrival) -> Accepted: ...
    def claim(self, event_id: str, taken: Claim) -> EventRecord | None: ...
    def get(self, event_id: str) -> EventRecord | None: ...
    def due(self, now: datetime, limit: int) -> Sequence[str]: ...
    def head(self, source: str, repository: str, branch: str) -> EventRecord | None: ...
    def deliveries(self, query: Query) -> Sequence[DeliveryRecord]: ...
    def delivery(self, delivery_id: str) -> DeliveryRecord | None: ...
    def list(self, query: Query) -> Sequence[EventRecord]: ...


class Decisions(Protocol):
    """Decisions."""

    def settle(
        self, item: EventRecord, asks: Sequence[Ask], *, holder: str, now: datetime
    ) -> Sequence[Judged] | None: ...
    def settle_again(
        self, decided: DecisionRecord, item: EventRecord, ask: Ask, *, holder: str, now: datetime
    ) -> Judged | None: ...
    def again(self, item: RunRecord, now: datetime) -> DecisionRecord: ...
    def claim(self, decision_id: str, taken: Claim) -> DecisionRecord | None: ...
    def get(self, decision_id: str) -> DecisionRecord | None: ...
    def due(self, now: datetime, limit: int) -> Sequence[str]: ...
    def of_event(self, event_id: str) -> Sequence[DecisionRecord]: ...
    def list(self, query: Query) -> Sequence[DecisionRecord]: ...


class Runs(Protocol):
    """Runs and their moves."""

    def move(
        self, move: Transition, *, holder: str | None = None, due_at: datetime | None = None, **changes: Any
    ) -> bool: ...
    def ask_to_cancel(self, run_key: str, now: datetime, reason: Reason = ...) -> RunRecord | None: ...
    def cancel_sent(self, run_key: str, now: datetime) -> None: ...
    def double(self, found: Double) -> bool: ...
    def doubles(self, *, open_only: bool = False) -> Sequence[Double]: ...
    def double_cancelled(self, found: Double, now: datetime) -> None: ...
    def package(self, digest: str) -> bytes | None: ...
    def revive(self, move: Transition) -> bool: ...
    def recorded(self, run_key: str, edges: Sequence[Edge], outputs: Mapping[str, Any], now: datetime) -> None: ...
    def get(self, run_key: str) -> RunRecord | None: ...
    def in_backends(self) -> Sequence[OpenRun]: ...
    def awaited(self) -> Collection[str]: ...
    def to_cancel(self) -> Sequence[RunRecord]: ...
    def unrecorded(self, since: datetime, until: datetime) -> Sequence[RunRecord]: ...
    def of_event(self, event_id: str) -> Sequence[RunRecord]: ...
    def transitions(self, run_key: str) -> Sequence[Transition]: ...
    def list(self, query: Query) -> Sequence[RunRecord]: ...


class Queue(Protocol):
    """Runs on their way to a backend."""

    def begin(self, item: RunRecord, taken: Claim, rate: Rate | None = None) -> RunRecord | None: ...
    def postpone(
        self, run_key: str, state: State, due_at: datetime, detail: str, *, holder: str | None = None
    ) -> None: ...
    def has_slot(self, name: str, slots: int) -> bool: ...
    def hurry(self, backend: str, now: datetime) -> Sequence[str]: ...
    def next_of(self, item: RunRecord) -> str | None: ...
    def admit(self, now: datetime) -> Sequence[str]: ...
    def due(self, now: datetime, limit: int, backend: str | None = None) -> Sequence[str]: ...


class Lineage(Protocol):
    """Edges."""

    def add(self, edges: Sequence[Edge], now: datetime) -> None: ...
    def into(self, node: str) -> Sequence[Edge]: ...
    def out_of(self, node: str) -> Sequence[Edge]: ...


class Leases(Protocol):
    """Who does the work of the clock."""

    def take(self, name: str, taken: Claim) -> bool: ...
    def give_back(self, name: str, holder: str) -> None: ...
    def keep_rules(self, digest: str, files: Mapping[str, str], now: datetime) -> None: ...
    def last_rules(self) -> Mapping[str, str]: ...


class Account(Protocol):
    """The account that always balances."""

    def verify(self, now: datetime, *, patience: timedelta, settle: timedelta) -> dict[str, Any]: ...
    def gauges(self) -> dict[str, dict[str, int]]: ...


class Ledger(Protocol):
    """All of it."""

    @property
    def events(self) -> Events: ...
    @property
    def decisions(self) -> Decisions: ...
    @property
    def runs(self) -> Runs: ...
    @property
    def queue(self) -> Queue: ...
    @property
    def lineage(self) -> Lineage: ...
    @property
    def leases(self) -> Leases: ...
    @property
    def account(self) -> Account: ...
