"""The parts that `kfp-triggers up` and the demos bring along, as processes for the supervisor: how each is started,
what it is told by file and environment, and how one sees that it is up.

All listen on loopback only, none phones home, every credential is random and kept under the home with mode 0600, and
no secret stands on a command line. The programs come from `service.parts`. Buckets are made in `service.buckets`.
"""

import contextlib
import http.client
import json
import os
import secrets
import socket
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

from service import parts
from service.supervise import Process

HOST = "127.0.0.1"
_PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR")  #: no proxies: all that these parts call is on loopback


@dataclass(frozen=True)
class S3:
    """An object store and the keys to it."""

    endpoint: str  #: with scheme
    access_key: str
    secret_key: str
    ours: bool = True  #: False: it was running before us, and is not ours to configure

    def environment(self) -> dict[str, str]:
        """What boto3, MLflow and our own settings for a run look at."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "MLFLOW_S3_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": "us-east-1",
        }


@dataclass(frozen=True)
class Webhook:
    """Where a part reports to: MinIO knows it by its id."""

    id: str
    url: str
    token: str


@dataclass(frozen=True)
class Grouping:
    """Alertmanager's patience: its own defaults are minutes, a demo has seconds."""

    wait: str = "30s"
    interval: str = "5m"
    repeat: str = "4h"


@dataclass(frozen=True)
class Watching:
    """What Prometheus is told: how often it looks, at all times the same for scrapes and rules, and the alert rules."""

    rules: Path
    interval: str = "15s"


def ports(home: Path, names: Iterable[str]) -> dict[str, int]:
    """A free port for each: the one of last time if it still is free. All are held until the last is found."""
    file = home / "ports.json"
    earlier: dict[str, int] = json.loads(file.read_text()) if file.exists() else {}
    with contextlib.ExitStack() as held:
        found = {name: held.enter_context(_bound(earlier.get(name, 0))).getsockname()[1] for name in names}
    file.write_text(json.dumps(earlier | found))
    return found


def _bound(port: int) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
        listener.listen(1)  # two may bind to one port until one of them listens
    except OSError:
        listener.close()
        if port == 0:
            raise
        return _bound(0)
    return listener


def secret(home: Path, name: str) -> str:
    """A random word, made at the first call and the same ever after."""
    path = home / "secrets" / name
    if not path.exists():
        write_private(path, secrets.token_urlsafe(24))
    return path.read_text()


def write_private(path: Path, text: str) -> Path:
    """For nobody else's eyes, and whole or not at all."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent)  # made with mode 0600
    with os.fdopen(handle, "w") as file:
        file.write(text)
    Path(temporary).replace(path)
    return path


def _environment(**more: str) -> dict[str, str]:
    return {name: os.environ[name] for name in _PASSED_ON if name in os.environ} | more


def status(port: int, path: str) -> int:
    """Of a GET that shows no credential; 0 while nobody answers."""
    connection = http.client.HTTPConnection(HOST, port, timeout=2)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()


def answers(port: int, path: str) -> bool:
    """Whether a GET gets a 2xx."""
    return 200 <= status(port, path) < 300


def redis_url(home: Path, port: int) -> str:
    """For Celery and redis-py."""
    return f"redis://:{secret(home, 'redis')}@{HOST}:{port}/0"


def redis(home: Path, port: int) -> Process:
    """The doorbell. Losing its last second loses time only."""
    password, folder = secret(home, "redis"), home / "redis"
    config = write_private(
        folder / "redis.conf",
        f"bind {HOST}\nport {port}\ndir {folder}\nrequirepass {password}\ndaemonize no\nsave ''\n"
        "appendonly yes\nappendfsync everysec\nmaxmemory 256mb\nmaxmemory-policy noeviction\n",
    )
    argv = [str(parts.find("redis-server")), str(config)]
    return Process(name="redis", argv=argv, env=_environment(), ready=lambda: _pongs(port, password), within=20)


def _pongs(port: int, password: str) -> bool:
    try:
        with socket.create_connection((HOST, port), timeout=2) as connection:
            connection.sendall(f"AUTH {password}\r\nPING\r\n".encode())
            answer = b""
            while answer.count(b"\r\n") < 2 and (more := connection.recv(256)):
                answer += more
            return b"+PONG" in answer
    except OSError:
        return False


def s3(home: Path, port: int, environ: Mapping[str, str]) -> S3:
    """The MinIO that S3_ENDPOINT names, else the one that `minio` starts."""
    if endpoint := environ.get("S3_ENDPOINT"):
        access = environ.get("S3_ACCESS_KEY") or environ.get("AWS_ACCESS_KEY_ID", "")
        key = environ.get("S3_SECRET_KEY") or environ.get("AWS_SECRET_ACCESS_KEY", "")
        return S3(endpoint if "://" in endpoint else f"http://{endpoint}", access, key, ours=False)
    return S3(f"http://{HOST}:{port}", "kfp-triggers", secret(home, "minio"))


def minio(home: Path, port: int, webhooks: Sequence[Webhook]) -> Process:
    """One drive, no console, no updates. What a webhook does not take waits in a queue on disk and is sent again."""
    env = _environment(
        MINIO_ROOT_USER="kfp-triggers",
        MINIO_ROOT_PASSWORD=secret(home, "minio"),
        MINIO_BROWSER="off",
        MINIO_UPDATE="off",
    )
    for one in webhooks:
        queue = home / "minio-queue" / one.id
        queue.mkdir(mode=0o700, parents=True, exist_ok=True)
        told = {"ENABLE": "on", "ENDPOINT": one.url, "AUTH_TOKEN": one.token, "QUEUE_DIR": str(queue)}
        env |= {f"MINIO_NOTIFY_WEBHOOK_{key}_{one.id}": value for key, value in told.items()}
    (home / "minio").mkdir(mode=0o700, exist_ok=True)
    argv = [str(parts.find("minio")), "server", "--quiet", "--address", f"{HOST}:{port}", str(home / "minio")]
    # Not /minio/health/ready: that is 200 before its users are known, and who comes then is told 503, "in a minute".
    return Process(name="minio", argv=argv, env=env, ready=lambda: status(port, "/") == HTTPStatus.FORBIDDEN)


def mlflow(home: Path, port: int, store: S3, bucket: str) -> Process:
    """Tracking and registry on SQLite, artifacts through it to the bucket. Takes 10 s: start it beside others."""
    (home / "mlflow").mkdir(mode=0o700, exist_ok=True)
    argv = [
        *(sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(port), "--workers", "1"),
        *("--backend-store-uri", f"sqlite:///{home / 'mlflow' / 'mlflow.db'}"),
        *("--serve-artifacts", "--artifacts-destination", f"s3://{bucket}"),
    ]
    quiet = {
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # eight processes and 2 GB for what nobody here uses
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
    }
    env = _environment(**store.environment(), **quiet)
    ready = lambda: answers(port, "/health")  # noqa: E731 - one word for the line below
    return Process(name="mlflow", argv=argv, env=env, cwd=home / "mlflow", ready=ready, within=180)


def alertmanager(home: Path, port: int, webhook: Webhook, grouping: Grouping) -> Process:
    """One receiver, us. No cluster."""
    folder = home / "alertmanager"
    token = write_private(folder / "token", webhook.token)
    target = {
        "url": webhook.url,
        "send_resolved": True,
        "http_config": {"authorization": {"type": "Bearer", "credentials_file": str(token)}},
    }
    route = {
        "receiver": "kfp-triggers",
        "group_by": ["..."],  # every alert its own group: none waits for another's interval
        "group_wait": grouping.wait,
        "group_interval": grouping.interval,
        "repeat_interval": grouping.repeat,
    }
    config = {"route": route, "receivers": [{"name": "kfp-triggers", "webhook_configs": [target]}]}
    argv = [
        str(parts.find("alertmanager")),
        f"--config.file={write_private(folder / 'alertmanager.yml', json.dumps(config, indent=2))}",  # JSON is YAML
        f"--storage.path={folder / 'data'}",
        f"--web.listen-address={HOST}:{port}",
        "--cluster.listen-address=",
    ]
    return Process(
        name="alertmanager", argv=argv, env=_environment(), ready=lambda: answers(port, "/-/ready"), within=30
    )


def prometheus(home: Path, port: int, watched: Watching, metrics: str, alertmanager: str) -> Process:
    """It scrapes /metrics at one address (host:port), and tells the Alertmanager at another what its rules find."""
    folder = home / "prometheus"
    config = {
        "global": {"scrape_interval": watched.interval, "evaluation_interval": watched.interval},
        "scrape_configs": [{"job_name": "kfp-triggers", "static_configs": [{"targets": [metrics]}]}],
        "rule_files": [str(watched.rules)],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": [alertmanager]}]}]},
    }
    argv = [
        str(parts.find("prometheus")),
        f"--config.file={write_private(folder / 'prometheus.yml', json.dumps(config, indent=2))}",  # JSON is YAML
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={HOST}:{port}",
    ]
    ready = lambda: answers(port, "/-/ready")  # noqa: E731 - one word for the line below
    return Process(name="prometheus", argv=argv, env=_environment(), cwd=folder, ready=ready, within=30)


def api(home: Path, argv: Sequence[str], port: int, env: Mapping[str, str]) -> Process:
    """The HTTP door."""
    ready = lambda: answers(port, "/healthz")  # noqa: E731 - one word for the line below
    return Process(name="api", argv=argv, env=_environment(**env), cwd=home, ready=ready)


def worker(home: Path, argv: Sequence[str], name: str, env: Mapping[str, str]) -> Process:
    """The hands. It has no door: that it lives must do. Its grace is longer than a task's."""
    return Process(name=name, argv=argv, env=_environment(**env), cwd=home, grace=12)
