"""Stand-ins for foreign systems behind their ports: backend, registry, object store, clock. Never for code of ours.

They refuse what the real ones refuse, and can be told to fail or to be killed at a named point.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from service.errors import Permanent, Temporary
from service.lifecycle import State
from service.ports import (
    Defaults,
    Finding,
    Job,
    Look,
    ModelVersion,
    ObjectInfo,
    Observed,
    Pipeline,
    Rate,
    RegisteredModel,
    Sighting,
    Version,
)
from triggers.schema import Input

TEXT = Input(type="STRING", optional=False)
SCORING = Pipeline(
    reference="scoring@v1",
    name="scoring",
    version="v1",
    digest="d1",
    inputs={
        "uri": TEXT,
        "model_version": Input(type="NUMBER_INTEGER", optional=True, default=1),
        "run_key": Input(type="STRING", optional=True, default=""),
        "report_uri": Input(type="STRING", optional=True, default=""),
        "as_of": Input(type="STRING", optional=True, default=""),
    },
)


class Killed(BaseException):
    """kill -9 of the process, at the point where it is raised: nothing after it happens."""


@dataclass
class FakeClock:
    """Time that moves when it is told to."""

    at: datetime = datetime(2026, 11, 21, 7, 0, tzinfo=UTC)

    def now(self) -> datetime:
        return self.at

    wall = now

    def look(self) -> None:
        pass

    def forward(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)


@dataclass
class FakeBackend:
    """A backend of the remote kind: `create` is not idempotent, and counts how often it was asked for each run key."""

    kind: str = "fake"
    settle: float = 60.0
    created: list[tuple[str, str]] = field(default_factory=list)  #: (run key, id)
    seen: dict[str, Observed] = field(default_factory=dict)
    cancelled: list[str] = field(default_factory=list)
    before_create: Exception | Killed | None = None  #: raised once, with nothing made
    after_create: Exception | Killed | None = None  #: raised once, with the run made
    away: bool = False
    room: int = 1_000  #: runs that it takes at a time
    rate: Rate | None = None
    defaults: Defaults = field(default_factory=Defaults)
    jobs: list[Job] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)  #: by run key
    retried: list[str] = field(default_factory=list)
    stale: bool = False  #: it shows no run that it was not asked about by its id

    def has_room(self) -> bool:
        return sum(one.state is State.RUNNING for one in self.seen.values()) < self.room

    def pipeline(self, reference: str) -> Pipeline:
        if self.away:
            raise Temporary("the backend does not answer")
        if reference != SCORING.reference:
            raise Permanent(f"there is no {reference}; there is {SCORING.reference}")
        return SCORING

    def find(self, run_key: str) -> Sequence[str]:
        if self.away:
            raise Temporary("the backend does not answer", nothing_happened=True)
        return [] if self.stale else [backend_id for key, backend_id in self.created if key == run_key]

    def create(self, job: Job) -> str:
        if problem := self.before_create:
            self.before_create = None
            raise problem
        backend_id = f"id-{len(self.created)}"
        self.created.append((job.run_key, backend_id))
        self.jobs.append(job)
        self.names[job.run_key] = job.display_name
        self.seen[backend_id] = Observed(state=State.RUNNING)
        if problem := self.after_create:
            self.after_create = None
            raise problem
        return backend_id

    def observe(self, backend_ids: Sequence[str], *, awaited: bool = False) -> Look:
        if self.away:
            raise Temporary("the backend does not answer")
        seen = {one: self.seen.get(one, Observed(state=State.GONE)) for one in backend_ids}
        others = [
            Sighting(backend_id=one, run_key=key, display_name=self.names.get(key, ""), observed=self.seen[one])
            for key, one in self.created
            if one not in seen and self.seen[one].state is State.RUNNING and not self.stale
        ]
        return Look(seen=seen, others=others)

    def cancel(self, backend_id: str) -> None:
        self.cancelled.append(backend_id)
        self.seen[backend_id] = Observed(state=State.CANCELLED)

    def retry(self, backend_id: str) -> None:
        self.retried.append(backend_id)
        self.seen[backend_id] = Observed(state=State.RUNNING)

    def log(self, backend_id: str) -> str:
        return f"log of {backend_id}"

    def link(self, backend_id: str) -> str:
        return ""

    def versions(self, name: str = "") -> Sequence[Version]:
        return [Version(pipeline="scoring", version="v1", digest=SCORING.digest, created_at=None)]

    def push(self, name: str, version: str, content: bytes) -> bool:
        raise Permanent("this one takes no pipelines")

    def check(self) -> Sequence[Finding]:
        return [Finding(what="reachable", good=not self.away, detail="")]

    def end(self, state: State = State.SUCCEEDED, error: str = "") -> None:
        """Everything that runs ends so."""
        for backend_id, observed in self.seen.items():
            if observed.state is State.RUNNING:
                self.seen[backend_id] = Observed(state=state, error=error)


@dataclass
class FakeRegistry:
    """One model with one alias."""

    version: int = 3
    away: bool = False
    traced: bool = False  #: it has a run of its own with the tag
    known: int = 9  #: how many versions there are
    made_by: dict[str, int] = field(default_factory=dict)  #: run key → the version that carries it
    before_set: Exception | Killed | None = None  #: raised once, with the alias where it was
    after_set: Exception | Killed | None = None  #: raised once, with the alias moved
    sets: list[int] = field(default_factory=list)  #: every version that the alias was set to

    def models(self) -> Sequence[RegisteredModel]:
        return [RegisteredModel(name="income-classifier", aliases=self.aliases("income-classifier"))]

    def aliases(self, name: str) -> Mapping[str, int]:
        if self.away:
            raise Temporary("the registry does not answer")
        if name != "income-classifier":
            raise Permanent(f"there is no {name}")
        return {"champion": self.version} if self.version else {}

    def versions(self, name: str, at_most: int) -> Sequence[ModelVersion]:
        self.aliases(name)
        numbers = range(self.known, max(0, self.known - at_most), -1)
        return [ModelVersion(name=name, alias="", version=one, run_id="r", source="", tags={}) for one in numbers]

    def set_alias(self, name: str, alias: str, version: int) -> None:
        self.aliases(name)
        if problem := self.before_set:
            self.before_set = None
            raise problem
        if version > self.known:
            raise Permanent(f"there is no version {version} of {name}")
        self.version = version
        self.sets.append(version)
        if problem := self.after_set:
            self.after_set = None
            raise problem

    def by_alias(self, name: str, alias: str) -> ModelVersion:
        if self.away:
            raise Temporary("the registry does not answer")
        if (name, alias) != ("income-classifier", "champion"):
            raise Permanent(f"there is no {name}@{alias}")
        return ModelVersion(name=name, alias=alias, version=self.version, run_id="r", source="", tags={})

    def link(self, name: str, version: int) -> str:
        return f"https://mlflow.example/#/models/{name}/versions/{version}"

    def tagged(self, run_key: str) -> Sequence[ModelVersion]:
        if self.away:
            raise Temporary("the registry does not answer")
        made = [self.made_by[run_key]] if run_key in self.made_by else []
        tags = {"run_key": run_key}
        return [
            ModelVersion(name="income-classifier", alias="", version=one, run_id="r", source="", tags=tags)
            for one in made
        ]

    def runs_tagged(self, run_key: str) -> Sequence[str]:
        if self.away:
            raise Temporary("the registry does not answer")
        return ["r1"] if self.traced else ()


@dataclass
class FakeObjects:
    """Objects by URI."""

    found: dict[str, bytes] = field(default_factory=dict)
    away: bool = False
    there: bool = True  #: whether the settings name it
    at: datetime = datetime(2026, 11, 21, 7, 0, tzinfo=UTC)  #: its own clock
    versions: list[ObjectInfo] = field(default_factory=list)  #: what its buckets list, described
    buckets: set[str] = field(default_factory=lambda: {"user-ids", "predictions"})
    page: int = 1_000
    listings: int = 0

    def is_there(self) -> bool:
        return self.there

    def now(self) -> datetime:
        if self.away:
            raise Temporary("the object store does not answer")
        return self.at.replace(microsecond=0)

    def listed(self, bucket: str, prefix: str = "") -> Iterator[Sequence[ObjectInfo]]:
        if self.away:
            raise Temporary("the object store does not answer")
        if bucket not in self.buckets:
            raise Permanent(f"there is no s3://{bucket}/{prefix}")
        self.listings += 1
        names = sorted((one for one in self.versions if one.uri.startswith(f"s3://{bucket}/{prefix}")), key=_uri)
        bare = [replace(one, content_type="", metadata={}) for one in names]
        yield from (bare[start : start + self.page] for start in range(0, len(bare), self.page)) if bare else [[]]

    def stat(self, uri: str, version_id: str = "") -> ObjectInfo:
        for one in reversed(self.versions):
            if (one.uri, one.version_id) == (uri, version_id) and not self.away:
                return one
        body = self._body(uri)
        return ObjectInfo(
            uri=uri,
            size=len(body),
            etag=hashlib.sha256(body).hexdigest()[:32],
            version_id="",
            last_modified=datetime(2026, 11, 21, tzinfo=UTC),
            content_type="text/csv",
            metadata={},
        )

    def rows(self, uri: str, version_id: str = "", *, at_most: int) -> int:
        return len([line for line in self._body(uri).splitlines() if line.strip()]) - 1

    def put(self, uri: str, body: bytes) -> None:
        if self.away:
            raise Temporary("the object store does not answer")
        self.found[uri] = body

    def reports(self, prefix: str) -> Mapping[str, bytes]:
        if self.away:
            raise Temporary("the object store does not answer")
        below = {
            uri.removeprefix(f"{prefix}/"): body for uri, body in self.found.items() if uri.startswith(f"{prefix}/")
        }
        return {name: body for name, body in below.items() if "/" not in name}

    def _body(self, uri: str) -> bytes:
        if self.away:
            raise Temporary("the object store does not answer")
        if uri not in self.found:
            raise Permanent(f"there is no {uri}")
        return self.found[uri]


def _uri(found: ObjectInfo) -> str:
    return found.uri


@dataclass
class FakeBell:
    """Remembers who was rung for, and rings nobody: a test answers, or leaves it to the sweep."""

    rung: list[tuple[str, str]] = field(default_factory=list)
    unheard: int = 0  #: rings of others

    def ring(self, task: str, key: str) -> None:
        self.rung.append((task, key))

    def waiting(self) -> int:
        return self.unheard
