"""`kfp-triggers up` in the ways that people have it: with a MinIO of theirs, and without any broker."""

import io
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from service import buckets, embedded
from service.embedded import S3
from service.records import Query
from service.settings import load
from service.supervise import Supervisor
from service.up import Stack, Wanted, bring_up
from service.wiring import opened


@pytest.fixture
def their_minio(tmp_path: Path) -> Iterator[S3]:
    """A server that runs already and knows nothing of us."""
    with Supervisor(tmp_path / "theirs", print) as supervisor:
        port = embedded.ports(supervisor.home, ["minio"])["minio"]
        supervisor.start(embedded.minio(supervisor.home, port, []))
        yield embedded.s3(supervisor.home, port, {})


@pytest.fixture
def stack(home: Path, their_minio: S3, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stack]:
    subprocess.run([sys.executable, "-m", "service.cli", "init", str(home)], check=True, capture_output=True)
    monkeypatch.setenv("S3_ENDPOINT", their_minio.endpoint)
    monkeypatch.setenv("S3_ACCESS_KEY", their_minio.access_key)
    monkeypatch.setenv("S3_SECRET_KEY", their_minio.secret_key)
    with Supervisor(home / "data", print) as supervisor:
        yield bring_up(supervisor, Wanted(minio=True, redis=False, port=0))


def test_a_file_in_a_minio_that_ran_before_us_becomes_a_run_without_a_broker(stack: Stack) -> None:
    assert stack.s3 is not None
    assert not stack.s3.ours
    buckets.client(stack.s3).put_object("uploads", "incoming/a.csv", io.BytesIO(b"1"), 1)
    deadline = time.monotonic() + 60
    with opened(load(stack.home), rings=False) as app:
        while not (runs := app.ledger.runs.list(Query(state="succeeded"))):
            assert time.monotonic() < deadline, app.ledger.events.list(Query())
            time.sleep(0.2)
    assert runs[0].params["uri"] == "s3://uploads/incoming/a.csv"
