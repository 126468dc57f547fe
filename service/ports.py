"""What the flow needs of the world, as Protocols and plain values: the adapters fit these, the flow sees nothing else.

`service.wiring` fills an `App`; tests fill one with fakes of the foreign systems only: the store is the real one.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Protocol

from ulid import ULID

from service.ledger import Arrival, Claim, Ledger
from service.lifecycle import State
from service.records import Accepted
from service.settings import PaceSettings
from triggers.rules.model import RuleSet
from triggers.schema import Input
from triggers.sourcefile import Source


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """A pipeline as a backend resolved it: what would run, and what it takes."""

    reference: str  #: as the rule wrote it: `name@version`
    name: str
    version: str  #: resolved: never `latest`
    digest: str  #: sha256 of the package
    inputs: Mapping[str, Input]


@dataclass(frozen=True, kw_only=True)
class Job:
    """All that a backend is told of a run."""

    run_key: str
    display_name: str
    description: str
    pipeline: Pipeline
    params: Mapping[str, Any]
    experiment: str
    time_limit: float  #: seconds


@dataclass(frozen=True, kw_only=True)
class Observed:
    """What a backend says of a run."""

    state: State  #: SUBMITTED, RUNNING, SUCCEEDED, FAILED, CANCELLED or GONE
    error: str = ""  #: for a person; names the failed task
    failed_task: str = ""
    started_at: datetime | None = None
    ended_at: datetime | None = None
    outputs: Mapping[str, Any] = field(default_factory=dict)
    interrupted: bool = False


class Backend(Protocol):
    """Where runs execute. Every method may raise Temporary or Permanent."""

    kind: str
    settle: float  #: seconds after an unclear `create` in which the run may still appear; 0 when `find` is exact

    def pipeline(self, reference: str) -> Pipeline:
        """The pipeline behind `name@version`; Permanent when there is none."""

    def has_room(self) -> bool:
        """Whether it takes another run now; a run that waits for room is hurried along when another one ends."""

    def find(self, run_key: str) -> str | None:
        """The backend's id of the run with this key, or None when it surely has none."""

    def create(self, job: Job) -> str:
        """Start it and return the backend's id. After a Temporary it may exist all the same: `find` before another."""

    def observe(self, backend_ids: Sequence[str]) -> Mapping[str, Observed]:
        """The state of each, in one call."""

    def cancel(self, backend_id: str) -> None:
        """Ask it to end; the end is seen by `observe`."""

    def log(self, backend_id: str) -> str:
        """What the run printed so far."""


@dataclass(frozen=True, kw_only=True)
class ModelVersion:
    """A version in the model registry."""

    name: str
    alias: str
    version: int
    run_id: str
    source: str
    tags: Mapping[str, str]


class Registry(Protocol):
    """The model registry."""

    def by_alias(self, name: str, alias: str) -> ModelVersion:
        """The version behind the alias; Permanent when there is none."""

    def tagged(self, run_key: str) -> Sequence[ModelVersion]:
        """The versions that carry this run key as a tag."""


@dataclass(frozen=True, kw_only=True)
class ObjectInfo:
    """What the store of objects says of one."""

    uri: str
    size: int
    etag: str
    version_id: str
    last_modified: datetime
    content_type: str
    metadata: Mapping[str, str]  #: user metadata, names in lower case without `x-amz-meta-`


class Objects(Protocol):
    """S3 objects, by URI."""

    def stat(self, uri: str, version_id: str = "") -> ObjectInfo:
        """Permanent when there is none."""

    def rows(self, uri: str, version_id: str = "", *, at_most: int) -> int:
        """Lines that are not blank, the header not counted, of a text object of at most so many bytes."""

    def reports(self, prefix: str) -> Mapping[str, bytes]:
        """The JSON objects under a report prefix (`s3://` or `file://`), by name; each at most 1 MiB."""


class Bell(Protocol):
    """The doorbell: tells a worker that a row is due. Losing a ring loses time, never work."""

    def ring(self, task: str, key: str) -> None:
        """Never raises and never blocks for long."""


class Clock(Protocol):
    """The only source of time."""

    def now(self) -> datetime:
        """Aware, UTC."""


@dataclass(frozen=True, kw_only=True)
class InForce:
    """The sources and rules that are in force right now, and what is wrong with the files, if anything."""

    sources: Mapping[str, Source]
    rules: RuleSet
    problems: Sequence[str]  #: of the files as they are on disk; the set before them stays in force
    loaded_at: datetime


class Rules(Protocol):
    """The rule files, taken up as they change."""

    def now(self) -> InForce:
        """What is in force; looks at the files at most once a second."""

    def secrets(self, source: str) -> Sequence[bytes]:
        """The secrets of a source, read anew so that a rotated one counts at once. Temporary when one is missing."""


@dataclass(frozen=True, kw_only=True)
class App:
    """Everything that a step of the flow is given."""

    ledger: Ledger
    accept: Callable[[Arrival], Accepted]  #: the ledger's, or the API's group commit
    rules: Rules
    backends: Mapping[str, Backend]
    registry: Registry
    objects: Objects
    bell: Bell
    clock: Clock
    pace: PaceSettings
    reports: str  #: prefix URI of reports: `s3://bucket/reports` or `file:///…`
    own_bucket: str  #: objects in it are never events
    holder: str  #: this process, in claims and leases

    def claim(self) -> Claim:
        """A claim from now for one lease."""
        now = self.clock.now()
        return Claim(holder=f"{self.holder}/{ULID()}", now=now, until=now + timedelta(seconds=self.pace.lease))
