"""The embedded stack: Redis, MinIO, MLflow, Alertmanager, Prometheus as asked for, an API and a worker, on one home.

`kfp-triggers up` runs it for a person's own files, the demos and the acceptance tests for theirs. What the parts are is
`service.embedded`'s word, how they are kept alive `service.supervise`'s.
"""

import os
import shlex
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from service import buckets, embedded
from service.embedded import S3, Grouping, Watching, Webhook
from service.errors import Refused, Temporary
from service.rulebook import RuleBook
from service.settings import Settings, load
from service.store.database import Database
from service.store.migrate import upgrade
from service.supervise import Supervisor
from service.wiring import rulebook
from triggers.sourcefile import Source


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What to bring along beside the API and the worker."""

    minio: bool = False
    mlflow: bool = False
    alertmanager: Grouping | None = None
    prometheus: Watching | None = None  #: it needs the Alertmanager too
    redis: bool = True
    worker: bool = True
    buckets: tuple[str, ...] = ()  #: to make, beside those that sources name
    port: int | None = None  #: of the API; None: the settings', 0: a free one
    env: Mapping[str, str] | None = None  #: more settings for the API and the worker


@dataclass(frozen=True, kw_only=True)
class Stack:
    """What is up, and how to reach it."""

    home: Path
    api: str  #: URL
    token: str  #: of the read API
    s3: S3 | None
    mlflow: str  #: URL, or ""
    alertmanager: str  #: URL, or ""
    prometheus: str  #: URL, or ""
    env: Mapping[str, str]  #: what the API and the worker were given

    def hook(self, source: str) -> str:
        """Where a source's sender posts."""
        return f"{self.api}/hooks/{source}"


def bring_up(supervisor: Supervisor, wanted: Wanted) -> Stack:
    """Start it all in order, and write `up.env`, by which other commands on this home find it."""
    home = supervisor.home.parent
    settings = load(home)
    names = ("api", "redis", "minio", "mlflow", "alertmanager", "prometheus")
    ports = embedded.ports(supervisor.home, names)
    api_port = (settings.api.port if wanted.port is None else wanted.port) or ports["api"]
    stack = _plan(settings, wanted, supervisor.home, ports | {"api": api_port})
    with closing(Database(settings.store)) as database:
        upgrade(database)
    with _environment(stack.env):
        book = rulebook(load(home))
        # MLflow is slow to start and needs only the object store: beside the rest.
        if wanted.redis:
            supervisor.start(embedded.redis(supervisor.home, ports["redis"]))
        _storage(supervisor, stack, wanted, book, ports["minio"])
        with ThreadPoolExecutor(1) as beside:
            tracking = beside.submit(_tracking, supervisor, stack, wanted, ports["mlflow"])
            argv = [sys.executable, "-m", "service.cli"]
            supervisor.start(embedded.api(home, [*argv, "api"], api_port, stack.env))
            _notifications(supervisor, stack, book)
            if wanted.worker and wanted.redis:
                supervisor.start(embedded.worker(home, [*argv, "worker"], "worker", stack.env))
            _alerts(supervisor, stack, wanted, book, ports["alertmanager"])
            _watching(supervisor, stack, wanted, ports["prometheus"])
            tracking.result()
    lines = [f"{name}={shlex.quote(value)}\n" for name, value in sorted(stack.env.items())]
    embedded.write_private(settings.data / "up.env", "".join(lines))
    return stack


def _plan(settings: Settings, wanted: Wanted, folder: Path, ports: Mapping[str, int]) -> Stack:
    """Every address and credential, before anything is started."""
    host = embedded.HOST
    store = embedded.s3(folder, ports["minio"], os.environ) if wanted.minio else None
    mlflow = f"http://{host}:{ports['mlflow']}" if wanted.mlflow else settings.mlflow.tracking_uri
    token = settings.api.token.get_secret_value() if settings.api.token else embedded.secret(folder, "api")
    env = {
        "KFP_TRIGGERS_HOME": str(settings.home),
        "KFP_TRIGGERS_API__HOST": settings.api.host,
        "KFP_TRIGGERS_API__PORT": str(ports["api"]),
        "KFP_TRIGGERS_API__TOKEN": token,
        "KFP_TRIGGERS_MLFLOW__TRACKING_URI": mlflow,
    }
    if wanted.redis:
        env["KFP_TRIGGERS_BROKER__URL"] = embedded.redis_url(folder, ports["redis"])
    if store is not None:
        env |= {
            "KFP_TRIGGERS_OBJECTS__ENDPOINT": store.endpoint,
            "KFP_TRIGGERS_OBJECTS__ACCESS_KEY": store.access_key,
            "KFP_TRIGGERS_OBJECTS__SECRET_KEY": store.secret_key,
        }
    passed = {name: text for name, text in os.environ.items() if name.startswith(("KFP_TRIGGERS_", "AWS_", "MLFLOW_"))}
    return Stack(
        home=settings.home,
        api=f"http://{host}:{ports['api']}",
        token=token,
        s3=store,
        mlflow=mlflow,
        alertmanager=f"http://{host}:{ports['alertmanager']}" if wanted.alertmanager else "",
        prometheus=f"http://{host}:{ports['prometheus']}" if wanted.prometheus else "",
        env=passed | env | dict(wanted.env or {}),
    )


def _storage(supervisor: Supervisor, stack: Stack, wanted: Wanted, book: RuleBook, port: int) -> None:
    """MinIO that knows the webhook of each source of its type, and every bucket that is named."""
    if stack.s3 is None:
        return
    if stack.s3.ours:
        supervisor.start(embedded.minio(supervisor.home, port, list(_webhooks(stack, book).values())))
    own = load(stack.home).objects.bucket
    watched = [bucket for source in _of_type(book, "minio").values() for bucket in _buckets(source)]
    buckets.make(stack.s3, sorted({own, *watched, *wanted.buckets, *(["mlflow"] if wanted.mlflow else [])}))


def _webhooks(stack: Stack, book: RuleBook) -> dict[str, Webhook]:
    """By source. MinIO's ids are upper-case words."""
    sources = _of_type(book, "minio")
    ids = {name: name.upper().replace("-", "_") for name in sources}
    return {name: Webhook(ids[name], stack.hook(name), _token(book, name)) for name in sources}


def _notifications(supervisor: Supervisor, stack: Stack, book: RuleBook) -> None:
    """Each source's buckets report to its webhook. After the API is up: MinIO tries the address that it is told."""
    if stack.s3 is None:
        return
    hooks = _webhooks(stack, book)
    if not stack.s3.ours:
        # A queue of undelivered notifications needs a folder on the server's own machine.
        local = stack.s3.endpoint.partition("://")[2].startswith(("127.", "localhost"))
        buckets.tell(stack.s3, list(hooks.values()), supervisor.home / "minio-queue" if local else None)
    for name, source in _of_type(book, "minio").items():
        for bucket in _buckets(source):
            buckets.report(stack.s3, bucket, hooks[name])


def _tracking(supervisor: Supervisor, stack: Stack, wanted: Wanted, port: int) -> None:
    if wanted.mlflow:
        if stack.s3 is None:
            raise Refused("MLflow keeps its artifacts in the object store: bring up MinIO too")
        supervisor.start(embedded.mlflow(supervisor.home, port, stack.s3, "mlflow"))


def _alerts(supervisor: Supervisor, stack: Stack, wanted: Wanted, book: RuleBook, port: int) -> None:
    sources = _of_type(book, "alertmanager")
    if wanted.alertmanager is None:
        return
    if not sources:
        raise Refused("an Alertmanager needs a source of type alertmanager in sources.yaml to report to")
    name = next(iter(sources))
    hook = Webhook(name, stack.hook(name), _token(book, name))
    supervisor.start(embedded.alertmanager(supervisor.home, port, hook, wanted.alertmanager))


def _watching(supervisor: Supervisor, stack: Stack, wanted: Wanted, port: int) -> None:
    if wanted.prometheus is None:
        return
    if not stack.alertmanager:
        raise Refused("Prometheus' alerts go to an Alertmanager: bring one up too")
    metrics, alertmanager = (url.partition("://")[2] for url in (stack.api, stack.alertmanager))
    supervisor.start(embedded.prometheus(supervisor.home, port, wanted.prometheus, metrics, alertmanager))


def _of_type(book: RuleBook, kind: str) -> dict[str, Source]:
    return {name: source for name, source in book.now().sources.items() if source.type == kind}


def _buckets(source: Source) -> list[str]:
    return list(getattr(source.config, "buckets", ()))


def _token(book: RuleBook, source: str) -> str:
    try:
        return book.secrets(source)[0].decode()
    except Temporary as error:
        raise Refused(error.detail) from error


class _environment:  # noqa: N801  # reads as a phrase: with _environment(…)
    """The rule files' `{env: …}` secrets and the settings as the children will see them."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._env, self._before = env, dict[str, str | None]()

    def __enter__(self) -> None:
        self._before = {name: os.environ.get(name) for name in self._env}
        os.environ.update(self._env)

    def __exit__(self, *_: object) -> None:
        for name, value in self._before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def up(settings: Settings, wanted: Wanted, echo: Callable[[str], None]) -> None:
    """Bring it up, say where everything is, stay until told to stop."""
    folder = settings.data
    with Supervisor(folder, echo) as supervisor:
        try:
            stack = bring_up(supervisor, wanted)
            for line in addresses(stack):
                echo(line)
            supervisor.wait()
        finally:
            (folder / "up.env").unlink(missing_ok=True)


def addresses(stack: Stack) -> list[str]:
    """Where everything is, a line each."""
    lines = [f"api           {stack.api}   (read API: Authorization: Bearer {stack.token})"]
    if stack.s3 is not None:
        lines.append(f"minio         {stack.s3.endpoint}   {stack.s3.access_key} / {stack.s3.secret_key}")
    if stack.mlflow:
        lines.append(f"mlflow        {stack.mlflow}")
    if stack.alertmanager:
        lines.append(f"alertmanager  {stack.alertmanager}")
    if stack.prometheus:
        lines.append(f"prometheus    {stack.prometheus}")
    lines.append(f"logs          {stack.home / 'data' / 'logs'}")
    return lines
