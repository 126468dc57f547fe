"""The composition root: the only place that builds clients. Settings in, an App out.

Called by the commands; production and tests call the same flow functions with what this makes.
"""

import os
import secrets
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Any

from service import failpoints
from service.broker import CeleryBell, InlineBell, NoBell, celery_app
from service.codehost import CodeHosts
from service.commits import Commits
from service.flow.steps import step
from service.kubeflow import KubeflowBackend
from service.ledger import Arrival
from service.local import LocalBackend
from service.objects import S3Objects
from service.packagefiles import Files
from service.ports import App, Backend, Bell
from service.records import Accepted
from service.rulebook import RuleBook
from service.secretparams import AllowedSecrets
from service.settings import ObjectSettings, Settings
from service.store import Store
from service.store.clock import StoreClock
from service.store.migrate import require_current
from service.store.writer import Writer
from service.tracking import MlflowRegistry


class SystemClock:
    """The machine's time, where there is no store."""

    def now(self) -> datetime:
        """Aware, UTC."""
        return datetime.now(UTC)

    wall = now

    def look(self) -> None:
        """It is always the newest."""


class Late:
    """A bell that needs the App that needs a bell."""

    def __init__(self) -> None:
        self.bell: Bell = NoBell()

    def ring(self, task: str, key: str) -> None:
        """Pass it on."""
        self.bell.ring(task, key)

    def waiting(self) -> int:
        """Passed on."""
        return self.bell.waiting()


@contextmanager
def opened(settings: Settings, *, ingest: bool = False, rings: bool = True) -> Iterator[App]:
    """An App for as long as the block lasts. `ingest`: with the group-commit writer, for the API; `rings`: with a
    doorbell, for whatever makes work."""
    failpoints.arm(os.environ)
    store = Store(settings.store)
    try:
        require_current(store.database)
    except BaseException:
        store.close()
        raise
    writer = Writer(store.database, at_most=settings.api.queue) if ingest else None
    late = Late()
    # The API decides only when there is no worker: it needs no warm registry beside one.
    decides = settings.broker.url is None if ingest else rings
    accept = writer.accept if writer else store.events.accept
    app = _app(settings, store, accept, late, decides=decides)
    bell = _bell(settings, app) if rings else NoBell()
    late.bell = bell
    try:
        yield app
    finally:
        for part in (writer, bell, store):
            if part is not None and not isinstance(part, NoBell):
                part.close()


def _bell(settings: Settings, app: App) -> CeleryBell | InlineBell:
    if settings.broker.url is not None:
        return CeleryBell(celery_app(settings.broker))
    return InlineBell(lambda name, key: step(app, name, key), settings.broker.concurrency)


def _app(settings: Settings, store: Store, accept: Callable[[Arrival], Accepted], bell: Bell, *, decides: bool) -> App:
    clock = StoreClock(store.database)
    found = backends(settings)
    registry = MlflowRegistry(settings.mlflow)
    allowed = AllowedSecrets(settings.home, settings.secret_params)
    if decides:
        threading.Thread(target=registry.warm, daemon=True).start()
    return App(
        ledger=store,
        accept=accept,
        rules=RuleBook(
            settings.home, found, clock, every=settings.pace.reload, kept=store.leases, forbids=allowed.forbids
        ),
        backends=found,
        registry=registry,
        objects=S3Objects(settings.objects),
        packages=Files(settings.home, Commits(settings.data / "commits", settings.home)),
        code=CodeHosts(settings.home),
        secrets=allowed,
        bell=bell,
        clock=clock,
        pace=settings.pace,
        retention=settings.retention,
        reports=reports_prefix(settings),
        own_bucket=settings.objects.bucket,
        holder=f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}",
    )


def rulebook(settings: Settings) -> RuleBook:
    """The rule files alone, for commands that need no store."""
    forbids = AllowedSecrets(settings.home, settings.secret_params).forbids
    return RuleBook(settings.home, backends(settings), SystemClock(), every=settings.pace.reload, forbids=forbids)


def backends(settings: Settings) -> Mapping[str, Backend]:
    """The backends by name. `local` is always there; `default` is it, too, unless the settings name another."""
    local = settings.local
    here = LocalBackend(
        packages=local.packages,
        runs=settings.data / "runs",
        leash=local.leash,
        max_parallel=local.max_parallel,
        env=run_environment(settings, os.environ),
    )
    there = {name: KubeflowBackend(name, one) for name, one in settings.backends.items()}
    return {"local": here, "default": here} | there


def run_environment(settings: Settings, environ: Mapping[str, str]) -> dict[str, str]:
    """What a local run sees: the allowed names, and the credentials of the object store and the registry."""
    allowed = {
        name: value
        for name, value in environ.items()
        if any(fnmatchcase(name, pattern) for pattern in settings.local.env)
    }
    return allowed | _storage_environment(settings.objects) | _tracking_environment(settings)


def _storage_environment(objects: ObjectSettings) -> dict[str, str]:
    """The names that boto3, Feast and the pipelines read. Feast's registry has one of its own."""
    found: dict[str, Any] = {
        "AWS_ACCESS_KEY_ID": objects.access_key and objects.access_key.get_secret_value(),
        "AWS_SECRET_ACCESS_KEY": objects.secret_key and objects.secret_key.get_secret_value(),
        "AWS_ENDPOINT_URL": objects.endpoint,
        "FEAST_S3_ENDPOINT_URL": objects.endpoint,
        "AWS_DEFAULT_REGION": objects.region,
    }
    return {name: value for name, value in found.items() if value}


def _tracking_environment(settings: Settings) -> dict[str, str]:
    return {"MLFLOW_TRACKING_URI": settings.mlflow.tracking_uri} if settings.mlflow.tracking_uri else {}


def reports_prefix(settings: Settings) -> str:
    """Where runs write their reports: our bucket, or a folder when there is no object store."""
    if settings.objects.endpoint:
        return f"s3://{settings.objects.bucket}/reports"
    return (settings.data / "reports").as_uri()
