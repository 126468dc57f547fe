"""A home whose backend is the stub KFP API server, over real HTTP. The service is the real one, its pace quick."""

import json
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from kfpserver import Stub
from world import TOKEN, notification

from service.flow.receive import receive
from service.flow.steps import step
from service.flow.sweep import sweep
from service.flow.watch import watch
from service.ports import App
from service.records import Query, RunRecord
from service.settings import Settings, load
from service.store.database import Database
from service.store.migrate import upgrade
from service.wiring import opened
from triggers.event import Delivery

PACE = {"lease": 1.0, "sweep": 0.1, "takeover": 0.0, "settle": 2.3, "watch": 0.05, "reload": 0.0}
TIMEOUT = 0.6
SOURCES = """
apiVersion: kfp-triggers/v1
sources:
  uploads: {type: minio, token: {file: uploads.token}, buckets: [user-ids]}
"""
RULES = """
apiVersion: kfp-triggers/v1
rules:
  score:
    trigger: {source: uploads, event: object.created}
    run: {pipeline: scoring@v1, params: {uri: "${event.object}"}}
"""
SCORING = {
    "components": {"comp-score": {"executorLabel": "exec-score", "inputDefinitions": {"parameters": {}}}},
    "deploymentSpec": {"executors": {"exec-score": {"container": {"image": "registry.example/score@sha256:1f"}}}},
    "pipelineInfo": {"name": "scoring"},
    "root": {
        "dag": {"tasks": {"score": {"componentRef": {"name": "comp-score"}, "taskInfo": {"name": "score"}}}},
        "inputDefinitions": {
            "parameters": {
                "uri": {"parameterType": "STRING"},
                "run_key": {"parameterType": "STRING", "isOptional": True, "defaultValue": ""},
            }
        },
    },
    "schemaVersion": "2.1.0",
    "sdkVersion": "kfp-2.17.0",
}


@dataclass
class Place:
    """The stub, and a home that sends its runs there."""

    stub: Stub
    home: Path
    settings: Settings

    def opened(self, *, rings: bool = False) -> AbstractContextManager[App]:
        """The service in this process; without a doorbell a test does what is due."""
        return opened(self.settings, rings=rings)

    def rules(self, text: str) -> None:
        """Put this rule file in force."""
        (self.home / "rules" / "rules.yaml").write_text(text)

    def push(self, package: Mapping[str, Any] = SCORING, version: str = "v1") -> None:
        """Upload a pipeline."""
        with self.opened() as app:
            app.backends["default"].push(package["pipelineInfo"]["name"], version, json.dumps(package).encode())


def made(tmp_path: Path, stub: Stub, pace: Mapping[str, float] = PACE, store_url: str = "", **backend: Any) -> Place:
    """A home beside the stub; without a URL its store is there too."""
    home = tmp_path / "home"
    (home / "rules").mkdir(parents=True)
    (home / "data").mkdir()
    (home / "sources.yaml").write_text(SOURCES)
    (home / "rules" / "rules.yaml").write_text(RULES)
    (home / "uploads.token").write_text(TOKEN)
    told = {"endpoint": stub.url, "timeout": TIMEOUT, "rate": 0, "polls": 6000} | backend
    lines = ["[pace]", *(f"{name} = {value}" for name, value in pace.items()), "[backends.default]"]
    lines += [f"{name} = {json.dumps(value)}" for name, value in told.items()]
    lines += ["[store]", f"url = {json.dumps(store_url)}"]
    (home / "settings.toml").write_text("\n".join(lines) + "\n")
    settings = load(home)
    database = Database(settings.store)
    upgrade(database)
    database.close()
    return Place(stub, home, settings)


def drop(app: App, key: str, **changes: object) -> str:
    """A new object is told of; the event's id."""
    headers = {"authorization": f"Bearer {TOKEN}", "content-type": "application/json"}
    body = notification(key, **{"request": key, **changes})
    return receive(app, Delivery(source="uploads", headers=headers, body=body, received_at=app.clock.now())).event_ids[
        0
    ]


def decide(app: App, event_id: str) -> None:
    """Decide it now."""
    step(app, "events.decide", event_id)


def runs(app: App) -> list[RunRecord]:
    """The oldest first."""
    return list(reversed(app.ledger.runs.list(Query(limit=500))))


def work(app: App, until: Callable[[], Any], within: float = 30) -> float:
    """Sweep and watch, as the duties do, until it is so; the seconds that it took."""
    began = time.monotonic()
    while not until():
        assert time.monotonic() - began < within, [(run.run_key, run.state, run.detail) for run in runs(app)][:5]
        sweep(app)
        watch(app)
        time.sleep(0.05)
    return time.monotonic() - began


def submitted(app: App) -> bool:
    """Every run has its id."""
    return all(run.backend_id for run in runs(app))


def account(app: App) -> dict[str, Any]:
    """What `verify` finds wrong."""
    hour = timedelta(hours=1)
    found = app.ledger.account.verify(app.clock.now(), patience=hour, settle=hour)
    return {name: found[name] for name in ("lost", "stuck", "twice", "unrecorded") if found[name]}
