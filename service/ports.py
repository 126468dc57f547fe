"""What the flow needs of the world, as Protocols and plain values: the adapters fit these, the flow sees nothing else.

`service.wiring` fills an `App`; tests fill one with fakes of the foreign systems only: the store is the real one.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Protocol

from ulid import ULID

from service.ledger import Arrival, Claim, Ledger, Rate
from service.lifecycle import State
from service.records import Accepted, RunRecord
from service.settings import PaceSettings, RetentionSettings
from triggers.rules.model import RuleSet
from triggers.schema import Input
from triggers.sourcefile import Source


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """A pipeline as a backend resolved it: what would run, and what it takes."""

    reference: str  #: as the rule wrote it: `name@version`
    name: str
    version: str  #: resolved: never `latest`
    digest: str  #: of the package's content (`service.packages.digest_of`)
    inputs: Mapping[str, Input]
    images: Sequence[str] = ()  #: that its steps run in


@dataclass(frozen=True, kw_only=True)
class Package:
    """A compiled pipeline as a file: not (yet) known to a backend by name."""

    content: bytes  #: KFP's IR in YAML
    upload: bool  #: as the version that its `Pipeline` names, and run by that name; else it is sent along with the run


@dataclass(frozen=True, kw_only=True)
class Defaults:
    """What a backend's runs have where their rule does not say."""

    experiment: str = "Default"
    caching: bool | None = None  #: None: as the pipeline was compiled
    service_account: str = ""
    pipeline_root: str = ""
    time_limit: timedelta = timedelta(hours=24)


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
    caching: bool | None = None  #: None: as the pipeline was compiled
    service_account: str = ""  #: "": the backend's own choice
    pipeline_root: str = ""
    package: Package | None = None  #: None: the backend knows the pipeline by name and version
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)  #: more parameters: passed on, kept nowhere


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


@dataclass(frozen=True, kw_only=True)
class Sighting:
    """A run that was not asked about, with the run key that its name carries: open, or ended since the last look."""

    backend_id: str
    run_key: str
    display_name: str
    observed: Observed


@dataclass(frozen=True, kw_only=True)
class Look:
    """What one look at a backend showed."""

    seen: Mapping[str, Observed]  #: by backend id; one that is not in it was not looked at this time
    others: Sequence[Sighting] = ()


@dataclass(frozen=True, kw_only=True)
class Version:
    """A version of a pipeline that a backend has."""

    pipeline: str
    version: str
    digest: str
    created_at: datetime | None
    id: str = ""  #: the backend's own, where it has one


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that `doctor` looked at."""

    what: str
    good: bool
    detail: str  #: for a person; of a bad one, what to do


class Backend(Protocol):
    """Where runs execute. Every method may raise Temporary or Permanent."""

    kind: str
    settle: float  #: seconds after an unclear `create` in which the run may still appear; 0 when `find` is exact
    defaults: Defaults
    rate: Rate | None  #: None: as fast as it answers

    def pipeline(self, reference: str) -> Pipeline:
        """The pipeline behind `name@version`; Permanent when there is none."""

    def has_room(self) -> bool:
        """Whether it takes another run now; a run that waits for room is hurried along when another one ends."""

    def find(self, run_key: str) -> Sequence[str]:
        """The backend's ids of the runs with this key, the oldest first; none when it surely has none."""

    def create(self, job: Job) -> str:
        """Start it and return the backend's id. After a Temporary it may exist all the same: `find` before another."""

    def observe(self, backend_ids: Sequence[str], *, awaited: bool = False) -> Look:
        """A look at all of them in as few calls as it takes. Called often: what it is too soon to ask is left out.

        `awaited`: there are runs whose answer was lost, and which may show among the others.
        """

    def cancel(self, backend_id: str) -> None:
        """Ask it to end; the end is seen by `observe`. Nothing happens to one that has ended."""

    def retry(self, backend_id: str) -> None:
        """Take a failed or cancelled run up again under the same id; Permanent where the backend cannot."""

    def log(self, backend_id: str) -> str:
        """What the run printed so far, or where that is to be found."""

    def link(self, backend_id: str) -> str:
        """The address of the run's page for a person, "" when there is none."""

    def versions(self, name: str = "") -> Sequence[Version]:
        """The versions of a pipeline, or of all of them; by name, then the newest first."""

    def push(self, name: str, version: str, content: bytes) -> bool:
        """Store a compiled pipeline as a version. False when it is there with this content; Permanent with another."""

    def check(self) -> Sequence[Finding]:
        """What `doctor` says of it: reachable, its version supported, runs may be made. Raises nothing."""


@dataclass(frozen=True, kw_only=True)
class ModelVersion:
    """A version in the model registry."""

    name: str
    alias: str
    version: int
    run_id: str
    source: str
    tags: Mapping[str, str]
    created_at: datetime | None = None
    figures: Mapping[str, float] = field(default_factory=dict)  #: the metrics of its run, where they were asked for


@dataclass(frozen=True, kw_only=True)
class RegisteredModel:
    """A model in the registry, with where its aliases point to."""

    name: str
    aliases: Mapping[str, int]


class Registry(Protocol):
    """The model registry."""

    def by_alias(self, name: str, alias: str) -> ModelVersion:
        """The version behind the alias; Permanent when there is none."""

    def models(self) -> Sequence[RegisteredModel]:
        """All of them, by name."""

    def aliases(self, name: str) -> Mapping[str, int]:
        """Where each alias of a model points to, as it is now; Permanent when there is no such model."""

    def versions(self, name: str, at_most: int) -> Sequence[ModelVersion]:
        """The newest versions of a model with their figures, the newest first; Permanent when there is no model."""

    def set_alias(self, name: str, alias: str, version: int) -> None:
        """Point an alias to a version, wherever it was; Permanent when there is no such version."""

    def link(self, name: str, version: int) -> str:
        """The address of a version's page for a person, "" when there is none."""

    def tagged(self, run_key: str) -> Sequence[ModelVersion]:
        """The versions that carry this run key as a tag."""

    def runs_tagged(self, run_key: str) -> Sequence[str]:
        """The ids of the registry's own runs (MLflow's) that carry this run key as a tag."""


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

    def is_there(self) -> bool:
        """Whether the settings name a store."""

    def now(self) -> datetime:
        """The store's own clock, in whole seconds."""

    def listed(self, bucket: str, prefix: str = "") -> Iterator[Sequence[ObjectInfo]]:
        """Every version of every object whose key begins so, in pages of at most 1,000; no content type or metadata.

        `last_modified` is in milliseconds. Removed ones are left out; Permanent when there is no such bucket.
        """

    def stat(self, uri: str, version_id: str = "") -> ObjectInfo:
        """Permanent when there is none."""

    def rows(self, uri: str, version_id: str = "", *, at_most: int) -> int:
        """Lines that are not blank, the header not counted, of a text object of at most so many bytes."""

    def put(self, uri: str, body: bytes) -> None:
        """Write a JSON document (`s3://` or `file://`); the same again is the same."""

    def reports(self, prefix: str) -> Mapping[str, bytes]:
        """The JSON objects under a report prefix (`s3://` or `file://`), by name; each at most 1 MiB."""


@dataclass(frozen=True, kw_only=True)
class FromCommit:
    """A compiled pipeline as a repository has it."""

    content: bytes
    service_account: str  #: the one that the source sets for what this repository brings along


class PackageFiles(Protocol):
    """Compiled pipelines that no backend has by name."""

    def file(self, path: str) -> bytes:
        """A file below the home; Permanent when there is none."""

    def of_commit(self, source: Source, repository: str, sha: str, path: str) -> FromCommit:
        """A file of a commit; Permanent unless the source allows it and the commit is on a branch that it lists."""


class SecretParams(Protocol):
    """Secrets that go to a pipeline as parameters."""

    def values(self, pipeline: str, references: Mapping[str, str]) -> Mapping[str, str]:
        """By parameter; Permanent when the settings do not allow it, Temporary when one cannot be read."""


class CommitState(StrEnum):
    """What a commit status says, in the words of GitHub and Gitea."""

    PENDING = "pending"
    SUCCESS = "success"
    FAILURE = "failure"
    ERROR = "error"  #: it came to no end of its own


@dataclass(frozen=True, kw_only=True)
class CommitStatus:
    """The one status of a rule on a commit; told again it replaces itself."""

    state: CommitState
    context: str  #: its name
    description: str
    link: str  #: "" for none


class CodeHost(Protocol):
    """Whoever keeps the code of a git source. May raise Temporary or Permanent."""

    def is_told(self, source: Source) -> bool:
        """Whether the source's settings say where and with what right."""

    def status(self, source: Source, repository: str, sha: str, status: CommitStatus) -> None:
        """Set it."""

    def comment(self, source: Source, repository: str, sha: str, marker: str, text: str) -> bool:
        """One comment that begins with the marker: edited when it is there. False where there is no place for one."""


class Bell(Protocol):
    """The doorbell: tells a worker that a row is due. Losing a ring loses time, never work."""

    def ring(self, task: str, key: str) -> None:
        """Never raises and never blocks for long."""

    def waiting(self) -> int:
        """How many rings nobody has heard yet, about; 0 where that cannot be said. Never raises."""


class Clock(Protocol):
    """The only source of time."""

    def now(self) -> datetime:
        """Aware, UTC; the same for all processes of a store, so that leases and due times mean one thing."""

    def wall(self) -> datetime:
        """What this machine's clock says: for times that a sender signed."""

    def look(self) -> None:
        """See that `now` is still right, every few seconds. May raise Temporary."""


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
    packages: PackageFiles
    code: CodeHost
    secrets: SecretParams
    bell: Bell
    clock: Clock
    pace: PaceSettings
    reports: str  #: prefix URI of reports: `s3://bucket/reports` or `file:///…`
    own_bucket: str  #: objects in it are never events
    holder: str  #: this process, in claims and leases
    retention: RetentionSettings = field(default_factory=RetentionSettings)

    def link(self, item: RunRecord) -> str:
        """The address of a run's page in its backend, "" when there is none."""
        backend = self.backends.get(item.backend)
        return backend.link(item.backend_id) if backend is not None and item.backend_id else ""

    def claim(self) -> Claim:
        """A claim from now for one lease."""
        now = self.clock.now()
        return Claim(holder=f"{self.holder}/{ULID()}", now=now, until=now + timedelta(seconds=self.pace.lease))
