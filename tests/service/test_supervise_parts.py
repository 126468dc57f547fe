"""The embedded parts as they really are: each comes up, does what the service needs of it, and goes."""

import io
import json
import os
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Queue
from threading import Thread

import pytest
import redis

from service import buckets, embedded
from service.embedded import HOST, S3, Webhook
from service.errors import Refused
from service.supervise import Supervisor

Received = Queue[tuple[str, str, bytes]]


@pytest.fixture
def received() -> Iterator[tuple[str, Received]]:
    """A receiver's address, and what it got: path, Authorization, body."""
    got: Received = Queue()

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            got.put((self.path, self.headers["Authorization"], body))
            self.send_response(200)
            self.end_headers()

        def do_HEAD(self) -> None:
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Keep quiet."""

    with ThreadingHTTPServer((HOST, 0), Receiver) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://{HOST}:{server.server_port}", got
        server.shutdown()
        thread.join()


def test_ports_stay_the_same_until_somebody_takes_one(tmp_path: Path) -> None:
    first = embedded.ports(tmp_path, ["a", "b"])
    assert len(set(first.values())) == 2
    assert embedded.ports(tmp_path, ["b", "a"]) == first
    with embedded._bound(first["a"]):
        second = embedded.ports(tmp_path, ["a", "b"])
    assert second["a"] != first["a"]
    assert second["b"] == first["b"]


def test_a_secret_is_made_once_for_nobody_else(tmp_path: Path) -> None:
    word = embedded.secret(tmp_path, "x")
    assert len(word) == 32
    assert embedded.secret(tmp_path, "x") == word
    assert (tmp_path / "secrets/x").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("endpoint", ["http://minio:9000", "minio:9000"])
def test_a_minio_that_runs_already_is_used(tmp_path: Path, endpoint: str) -> None:
    environ = {"S3_ENDPOINT": endpoint, "AWS_ACCESS_KEY_ID": "a", "S3_SECRET_KEY": "b"}
    assert embedded.s3(tmp_path, 1, environ) == S3("http://minio:9000", "a", "b", ours=False)


def test_redis_asks_for_its_password_and_keeps_what_it_has(tmp_path: Path) -> None:
    port = embedded.ports(tmp_path, ["redis"])["redis"]
    process = embedded.redis(tmp_path, port)
    assert embedded.secret(tmp_path, "redis") not in " ".join([*process.argv, *process.env.values()])
    with Supervisor(tmp_path) as supervisor:
        supervisor.start(process)
        with redis.Redis.from_url(embedded.redis_url(tmp_path, port)) as client:
            assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
            client.set("a", "b")
        with redis.Redis(host=HOST, port=port) as stranger, pytest.raises(redis.AuthenticationError):
            stranger.ping()
        supervisor.stop("redis")
        supervisor.start(process)
        with redis.Redis.from_url(embedded.redis_url(tmp_path, port)) as client:
            assert client.get("a") == b"b"


def test_minio_reports_an_object_with_its_version(tmp_path: Path, received: tuple[str, Received]) -> None:
    url, got = received
    port = embedded.ports(tmp_path, ["minio"])["minio"]
    store, webhook = embedded.s3(tmp_path, port, {}), Webhook("uploads", f"{url}/hooks/uploads", "token")
    with Supervisor(tmp_path) as supervisor:
        supervisor.start(embedded.minio(tmp_path, port, [webhook]))
        for _ in range(2):  # a second start finds all as it should be
            buckets.make(store, ["user-ids"])
            buckets.report(store, "user-ids", webhook)
        with pytest.raises(Refused, match="notify_webhook:other"):
            buckets.report(store, "user-ids", Webhook("other", url, "token"))
        put = buckets.client(store).put_object("user-ids", "incoming/a.csv", io.BytesIO(b"id\n1\n"), 5)
        path, authorization, body = got.get(timeout=20)
    record = json.loads(body)["Records"][0]["s3"]["object"]
    assert (path, authorization) == ("/hooks/uploads", "Bearer token")
    assert record["versionId"] == put.version_id


def test_alertmanager_tells_the_webhook(tmp_path: Path, received: tuple[str, Received]) -> None:
    url, got = received
    port = embedded.ports(tmp_path, ["alertmanager"])["alertmanager"]
    quick = embedded.Grouping("0s", "1s", "1h")
    with Supervisor(tmp_path) as supervisor:
        supervisor.start(embedded.alertmanager(tmp_path, port, Webhook("drift", f"{url}/hooks/drift", "token"), quick))
        alert = json.dumps([{"labels": {"alertname": "FeatureDrift"}}]).encode()
        headers = {"Content-Type": "application/json"}
        urllib.request.urlopen(
            urllib.request.Request(f"http://{HOST}:{port}/api/v2/alerts", alert, headers)
        ).close()  # fmt: skip
        path, authorization, body = got.get(timeout=20)
    assert (path, authorization) == ("/hooks/drift", "Bearer token")
    assert json.loads(body)["alerts"][0]["labels"] == {"alertname": "FeatureDrift"}


def test_prometheus_scrapes_us_and_tells_alertmanager_what_its_rules_find(
    tmp_path: Path, received: tuple[str, Received]
) -> None:
    url, got = received
    ports = embedded.ports(tmp_path, ["alertmanager", "prometheus"])
    rule = {"alert": "NobodyThere", "expr": 'up{job="kfp-triggers"} == 0', "labels": {"model": "m"}}
    rules = tmp_path / "rules.yml"
    rules.write_text(json.dumps({"groups": [{"name": "g", "rules": [rule]}]}))
    with Supervisor(tmp_path) as supervisor:
        webhook = Webhook("drift", f"{url}/hooks/drift", "token")
        quick = embedded.Grouping("0s", "1s", "1h")
        supervisor.start(embedded.alertmanager(tmp_path, ports["alertmanager"], webhook, quick))
        watched = embedded.Watching(rules, "1s")
        nobody, alertmanager = f"{HOST}:1", f"{HOST}:{ports['alertmanager']}"
        supervisor.start(embedded.prometheus(tmp_path, ports["prometheus"], watched, nobody, alertmanager))
        _, _, body = got.get(timeout=20)
    (alert,) = json.loads(body)["alerts"]
    assert alert["labels"] == {"alertname": "NobodyThere", "instance": nobody, "job": "kfp-triggers", "model": "m"}


def test_no_part_is_told_of_the_callers_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_SECRET", "x")
    started = [embedded.redis(tmp_path, 1), embedded.mlflow(tmp_path, 1, S3("http://x", "a", "b"), "mlflow")]
    assert all("SOME_SECRET" not in one.env for one in started)
    assert all(os.environ["PATH"] == one.env["PATH"] for one in started)
