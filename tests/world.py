"""A world to test in: an App whose store, rules and flow are the real ones, and whose foreign systems are fakes."""

import dataclasses
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote_plus

from fakes import FakeBackend, FakeBell, FakeClock, FakeObjects, FakeRegistry

from service.codehost import CodeHosts
from service.commits import Commits
from service.flow.steps import step
from service.flow.sweep import sweep
from service.flow.watch import watch
from service.packagefiles import Files
from service.ports import App
from service.rulebook import RuleBook
from service.secretparams import AllowedSecrets
from service.settings import PaceSettings, StoreSettings
from service.store import Store, migrate

SOURCES = """
apiVersion: kfp-triggers/v1
sources:
  uploads: {type: minio, token: {file: uploads.token}, buckets: [user-ids, predictions]}
  model-repo: {type: github, secrets: [{file: uploads.token}], repositories: {acme/model: {url: "https://git/acme/model"}}}
  drift: {type: alertmanager, token: {file: uploads.token}}
"""
RULES = """
apiVersion: kfp-triggers/v1
rules:
  score:
    trigger: {source: uploads, event: object.created, key: "incoming/**"}
    lookup: {model: {mlflow_model: income-classifier, alias: champion}}
    run:
      pipeline: scoring@v1
      params: {uri: "${event.object}", model_version: "${lookup.model.version}"}
      writes: ["s3://predictions/incoming/${event.name}-${run.key}"]
"""
#: What the rule runs, with no step in it: enough to be checked against its parameters.
PACKAGE = """
components: {}
deploymentSpec: {}
pipelineInfo: {name: scoring}
root:
  dag: {tasks: {}}
  inputDefinitions:
    parameters: {uri: {parameterType: STRING}, model_version: {parameterType: NUMBER_INTEGER}}
schemaVersion: 2.1.0
sdkVersion: kfp-2.17.0
"""
TOKEN = "a-token-of-some-length"


@dataclasses.dataclass
class World:
    """The App and the things a test turns."""

    app: App
    home: Path
    backend: FakeBackend
    registry: FakeRegistry
    objects: FakeObjects
    bell: FakeBell
    clock: FakeClock
    store: Store

    def rules(self, text: str) -> None:
        """Put this rule file in force."""
        (self.home / "rules" / "rules.yaml").write_text(text)

    def answer(self) -> None:
        """Do all that was rung for, as a worker would, until it is quiet."""
        while self.bell.rung:
            step(self.app, *self.bell.rung.pop(0))

    def restart(self) -> None:
        """As after a restart of the process: what it had in memory is gone."""
        rules = RuleBook(self.home, self.app.backends, self.clock, every=0, kept=self.store.leases)
        self.app = dataclasses.replace(self.app, rules=rules)

    def another_process(self, holder: str) -> App:
        """The same world as another process sees it."""
        return dataclasses.replace(self.app, holder=holder)

    def later(self, seconds: float) -> None:
        """Time passes, and the clock's duties are done once."""
        self.clock.forward(seconds)
        sweep(self.app)
        watch(self.app)


@contextmanager
def made(tmp_path: Path, store_url: str = "") -> Iterator[World]:
    """A world in this folder; without a URL its store is there too."""
    (tmp_path / "rules").mkdir()
    (tmp_path / "sources.yaml").write_text(SOURCES)
    (tmp_path / "rules" / "rules.yaml").write_text(RULES)
    (tmp_path / "uploads.token").write_text(TOKEN + "\n")
    store = Store(StoreSettings(url=store_url or f"sqlite:///{tmp_path / 'store.db'}"))
    migrate.upgrade(store.database)
    allowed = AllowedSecrets(tmp_path, {"scoring": ("env:LEGACY_*", "file:secrets/*")})
    backend, registry, objects, bell, clock = FakeBackend(), FakeRegistry(), FakeObjects(), FakeBell(), FakeClock()
    app = App(
        ledger=store,
        accept=store.events.accept,
        rules=RuleBook(tmp_path, {"default": backend}, clock, every=0, kept=store.leases, forbids=allowed.forbids),
        backends={"default": backend},
        registry=registry,
        objects=objects,
        packages=Files(tmp_path, Commits(tmp_path / "commits", tmp_path)),
        code=CodeHosts(tmp_path),
        secrets=allowed,
        bell=bell,
        clock=clock,
        pace=PaceSettings(),
        reports="s3://kfp-triggers/reports",
        own_bucket="kfp-triggers",
        holder="test",
    )
    yield World(app, tmp_path, backend, registry, objects, bell, clock, store)
    store.close()


def notification(key: str = "incoming/a.csv", **changes: object) -> bytes:
    """What MinIO posts for a new object."""
    told = {
        "key": quote_plus(key),
        "size": 12,
        "eTag": "e1",
        "contentType": "text/csv",
        "sequencer": "187A5B1C2D3E4F50",
    }
    told |= {"userMetadata": {"content-type": "text/csv"}} | changes
    record = {
        "eventVersion": "2.0",
        "eventSource": "minio:s3",
        "eventTime": "2026-11-21T07:00:00.000Z",
        "eventName": "s3:ObjectCreated:Put",
        "responseElements": {"x-amz-request-id": str(told.get("request", "R1")), "x-minio-deployment-id": "d"},
        "s3": {"bucket": {"name": "user-ids"}, "object": told},
    }
    body = {"EventName": "s3:ObjectCreated:Put", "Key": f"user-ids/{key}", "Records": [record]}
    return json.dumps(body).encode()
