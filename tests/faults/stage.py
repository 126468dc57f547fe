"""Where faults are played: a home on the stub KFP API server, real processes of the service on it, and the oracle.

A test drops events in, breaks something, and asks `settled`: drain, `verify`, the stub's own count.
"""

import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psycopg
from kfpserver import Stub
from kfpworld import SCORING
from world import TOKEN, notification

from service.records import Query, RunRecord
from service.settings import Settings, load
from service.store import Store
from service.store.migrate import upgrade

ROOT = Path(__file__).parents[2]
PACE = {"lease": 1.5, "sweep": 0.2, "takeover": 0.2, "settle": 3.5, "watch": 0.1, "reload": 0.1}
TIMEOUT = 1.0  #: of a call to the KFP API server; settle is at least the lease and twice this
PATIENCE = 30.0  #: seconds until a test gives up: CI is slow
AUTH = {"authorization": f"Bearer {TOKEN}", "content-type": "application/json"}
SOURCES = """
apiVersion: kfp-triggers/v1
sources:
  uploads: {type: minio, token: {file: uploads.token}, buckets: [user-ids]}
"""
RULE = """
  score:
    trigger: {source: uploads, event: object.created}
    run: {pipeline: scoring@v1, params: {uri: "${event.object}"}}
"""


class Mother:
    """Forks processes of the service (see `mother.py`), of this tree or another one; one for a session."""

    def __init__(self, root: Path = ROOT, **env: str) -> None:
        argv = [sys.executable, "-W", "ignore", str(Path(__file__).with_name("mother.py"))]
        told = {"PYTHONPATH": f"{root}{os.pathsep}{ROOT / 'tests'}", "MLFLOW_DISABLE_TELEMETRY": "true"} | env
        self._process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **told}, cwd=root
        )
        assert self._answer() == "ready"

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())

    def ask(self, **order: Any) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """Its children end with it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(timeout=10)
        self._process.stdout.close()


@dataclass
class Child:
    """One process of the service."""

    mother: Mother
    pid: int
    log: Path
    status: int | None = None

    def ended(self, within: float = PATIENCE) -> int | None:
        """How it ended, a signal's number being negative; None when it lives."""
        if self.status is None:
            self.status = self.mother.ask(wait=self.pid, seconds=within)
        return self.status

    def kill(self) -> None:
        """As kill -9 does."""
        os.kill(self.pid, signal.SIGKILL)
        assert self.ended() == -signal.SIGKILL


@dataclass
class Stage:
    """A home, the stub, and what runs on them."""

    home: Path
    stub: Stub
    mother: Mother
    port: int
    settings: Settings
    children: list[Child] = field(default_factory=list)
    posted: int = 0

    def write(self, name: str, text: str) -> None:
        """A file of the home, as an editor writes it: whole, by a rename."""
        part = self.home / f"{name}.part"
        part.write_text(text)
        part.rename(self.home / name)

    def rules(self, *rules: str) -> None:
        """Put these in force; the running API takes them up."""
        self.write("rules/rules.yaml", "apiVersion: kfp-triggers/v1\nrules:" + "".join(rules or (RULE,)))

    def start(self, *argv: str, failpoint: str = "", limits: Mapping[str, int] | None = None, **env: str) -> Child:
        """A process of this command line, armed if a failpoint is named; `limits` as `resource` calls them."""
        log = self.home / "data" / f"{argv[0]}-{len(self.children)}.log"
        log.touch()
        wanted = {"KFP_TRIGGERS_HOME": str(self.home), "KFP_TRIGGERS_FAILPOINT": failpoint, **env}
        born = self.mother.ask(argv=argv, env=wanted, log=str(log), limits=dict(limits or {}))
        child = Child(self.mother, born, log)
        self.children.append(child)
        return child

    def api(self, failpoint: str = "", limits: Mapping[str, int] | None = None, **env: str) -> Child:
        """The API, listening."""
        child = self.start("api", failpoint=failpoint, limits=limits, **env)
        until(lambda: listens(self.port) or child.ended(within=0) is not None, what="the API listens")
        return child

    def command(self, *argv: str) -> tuple[int, str]:
        """A command line to its end: exit status and what it printed."""
        child = self.start(*argv)
        status = child.ended()
        assert status is not None
        return status, child.log.read_text()

    def post(self, body: bytes, source: str = "uploads", headers: Mapping[str, str] = AUTH, port: int = 0) -> int:
        """The answer to a delivery; 0 when there is none."""
        try:
            url = f"http://127.0.0.1:{port or self.port}/hooks/{source}"
            return httpx.post(url, content=body, headers=dict(headers), timeout=20).status_code
        except httpx.TransportError:
            return 0

    def body(self, key: str = "") -> bytes:
        """What MinIO tells of a new object; the same key is the same event, another one another."""
        self.posted += 1
        key = key or f"{self.home.name}/{self.posted}.csv"
        return notification(
            key, request=key, sequencer=f"187A5B1C{uuid.uuid5(uuid.NAMESPACE_URL, key).hex[:8].upper()}"
        )

    def deliver(self, body: bytes = b"", within: float = PATIENCE) -> bytes:
        """As a sender with a queue does: again and again until it is taken."""
        body = body or self.body()
        until(lambda: self.post(body) in {200, 202}, within, what="the delivery is taken")
        return body

    @contextmanager
    def held(self) -> Iterator[None]:
        """The store's tables, by another program that writes for long."""
        if self.settings.store.url.startswith("sqlite"):
            with closing(sqlite3.connect(self.settings.store.url.removeprefix("sqlite:///"))) as other:
                other.isolation_level = None
                other.execute("begin exclusive")
                yield
        else:
            with psycopg.connect(self.settings.store.url) as other:
                other.execute("lock table delivery, event, run, lease")
                yield
                other.rollback()

    @contextmanager
    def store(self) -> Iterator[Store]:
        """The rows."""
        store = Store(self.settings.store)
        try:
            yield store
        finally:
            store.close()

    def runs(self) -> Sequence[RunRecord]:
        """The oldest first."""
        with self.store() as store:
            return list(reversed(store.runs.list(Query(limit=500))))

    def settled(self, keys: int, within: float = PATIENCE, *, executed: int = 1) -> float:
        """The oracle: drained, `verify` finds nothing, the stub made one run per key. Seconds until it had drained."""
        began = time.monotonic()
        with self.store() as store:
            until(lambda: _drained(store, keys), within, what=lambda: _shown(store))
        seconds = time.monotonic() - began
        found = self.verified()
        assert found["events"]["accepted"] == sum(found["events"].values()) - found["events"]["accepted"]
        counted = self.stub.counts()["executed_keys"]
        asked = [run for run in self.runs() if run.backend_id]
        assert {run.run_key: counted.get(run.run_key, 0) for run in asked} == {run.run_key: executed for run in asked}
        return seconds

    def verified(self) -> Any:
        """`kfp-triggers verify --json`, with nothing found."""
        status, said = self.command("verify", "--json")
        assert status == 0, said
        found = json.loads(said)
        assert {name: found[name] for name in ("lost", "stuck", "twice")} == {"lost": [], "stuck": [], "twice": []}
        return found

    def close(self) -> None:
        """End what still runs."""
        for child in self.children:
            if child.ended(within=0) is None:
                child.kill()


def staged(folder: Path, stub: Stub, mother: Mother, template: Path, store_url: str = "") -> Stage:
    """A home beside the stub, with the store of the template, or another one."""
    home = folder / f"home-{uuid.uuid4().hex[:8]}"
    shutil.copytree(template, home)
    port = free_port()
    told = {"endpoint": stub.url, "timeout": TIMEOUT, "rate": 0, "polls": 6000}
    lines = ["[pace]", *(f"{name} = {value}" for name, value in PACE.items()), "[backends.default]"]
    lines += [f"{name} = {json.dumps(value)}" for name, value in told.items()]
    lines += ["[api]", f"port = {port}", "[log]", 'format = "json"', "[store]", f'url = "{store_url}"']
    (home / "settings.toml").write_text("\n".join(lines) + "\n")
    stage = Stage(home, stub, mother, port, load(home))
    stage.rules()
    return stage


def template(folder: Path) -> Path:
    """A home with an empty store of this schema."""
    home = folder / "template"
    (home / "rules").mkdir(parents=True)
    (home / "data").mkdir()
    (home / "uploads.token").write_text(TOKEN)
    (home / "sources.yaml").write_text(SOURCES)
    store = Store(load(home).store)
    upgrade(store.database)
    store.close()
    return home


def push(stub: Stub) -> None:
    """The pipeline that the rules run, uploaded as anybody does."""
    stub.upload("upload", json.dumps(SCORING), name="scoring")
    listed = stub.http.get("/apis/v2beta1/pipelines").json()["pipelines"]
    pipeline_id = next(one["pipeline_id"] for one in listed if one["display_name"] == "scoring")
    stub.upload("upload_version", json.dumps(SCORING), name="v1", pipelineid=pipeline_id)


def until(true: Callable[[], Any], within: float = PATIENCE, what: str | Callable[[], str] = "it comes true") -> Any:
    """Wait; what it said."""
    began = time.monotonic()
    while not (found := true()):
        seconds = time.monotonic() - began
        assert seconds < within * crowd(), f"not within {seconds:.0f} s: {what if isinstance(what, str) else what()}"
        time.sleep(0.03)
    return found


def bound(more: float = 0.0) -> float:
    """Seconds in which work resumes: lease, sweep and 5 s, these on a machine whose processors nobody else wants."""
    return PACE["lease"] + PACE["sweep"] + 5 * crowd() + more


def crowd() -> float:
    """How many want a processor at once; 1 where there are enough."""
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def listens(port: int) -> bool:
    """Whether somebody does."""
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


def free_port() -> int:
    """One that nobody listens on now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _drained(store: Store, keys: int) -> bool:
    counted = store.account.gauges()
    ends = {"succeeded", "failed", "cancelled", "dead", "gone", "superseded"}
    if counted["event"].get("accepted") or counted["decision"].get("wait") or set(counted["run"]) - ends:
        return False
    runs = store.runs.list(Query(limit=500))
    return len(runs) == keys and all(run.recorded_at for run in runs if run.backend_id)


def _shown(store: Store) -> str:
    runs = [(run.run_key, str(run.state), run.detail, run.recorded_at) for run in store.runs.list(Query(limit=20))]
    return f"{store.account.gauges()} {runs}"
