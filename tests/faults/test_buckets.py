"""F22: MinIO or its way to us is down, its queue is full, nobody was told: each object has its one run all the same."""

import contextlib
import io
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from faults.report import Account
from faults.stage import Child, Stage, bound, free_port, until
from world import TOKEN

from service import buckets, parts
from service.embedded import S3, Webhook

pytestmark = pytest.mark.faults
quick = pytest.mark.quick
EVERY, NOTICE = 1.0, 0.5  #: of the scan, scaled down
RESENT = 3.0  #: seconds until MinIO tries again what is in its queue
SOURCES = """
apiVersion: kfp-triggers/v1
sources:
  uploads: {type: minio, token: {file: uploads.token}, buckets: [user-ids], scan: SCAN}
"""


@dataclass
class Minio:
    """A real one that a test may kill. Its notifications wait in a queue on disk, of so many at most."""

    folder: Path
    hook: Webhook
    limit: int = 100_000
    port: int = field(default_factory=free_port)
    puts: int = 0
    _process: subprocess.Popen[bytes] | None = None

    @property
    def store(self) -> S3:
        return S3(f"http://127.0.0.1:{self.port}", "kfp-triggers", "a-secret-of-some-length")

    def start(self) -> None:
        """Start it, and wait until it takes requests."""
        told = {"ENABLE": "on", "ENDPOINT": self.hook.url, "AUTH_TOKEN": self.hook.token}
        told |= {"QUEUE_DIR": str(self.folder / "queue"), "QUEUE_LIMIT": str(self.limit)}
        env = {"PATH": os.environ["PATH"], "MINIO_BROWSER": "off", "MINIO_UPDATE": "off", "HOME": str(self.folder)}
        env |= {"MINIO_ROOT_USER": self.store.access_key, "MINIO_ROOT_PASSWORD": self.store.secret_key}
        env |= {f"MINIO_NOTIFY_WEBHOOK_{name}_UPLOADS": value for name, value in told.items()}
        argv = [str(parts.find("minio")), "server", "--quiet", "--address", f"127.0.0.1:{self.port}"]
        with (self.folder / "minio.log").open("ab") as log:
            self._process = subprocess.Popen([*argv, str(self.folder / "drive")], env=env, stdout=log, stderr=log)
        until(self._answers, what="MinIO knows its users")

    def _answers(self) -> bool:
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(self.store.endpoint).status_code == 403
        return False

    def put(self, times: int, key: str = "incoming/{}.csv") -> None:
        """New objects."""
        client = buckets.client(self.store)
        for _ in range(times):
            self.puts += 1
            client.put_object("user-ids", key.format(self.puts), io.BytesIO(b"user_id\n1\n"), 10)

    def kill(self) -> None:
        """As kill -9 does: what it had in memory is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(timeout=10)
            self._process = None


@pytest.fixture
def minio(stage: Stage, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Minio]:
    hook = Webhook("UPLOADS", f"http://127.0.0.1:{stage.port}/hooks/uploads", TOKEN)
    folder = tmp_path / "minio"
    (folder / "queue").mkdir(parents=True)
    one = Minio(folder, hook, limit=getattr(request, "param", 100_000))
    one.start()
    buckets.make(one.store, ["user-ids"])
    yield one
    one.kill()


def api(stage: Stage, minio: Minio, scan: str = f"{{every: {EVERY:.0f}s}}") -> Child:
    """With the scan as it is to be; back when it has looked for the first time."""
    stage.write("sources.yaml", SOURCES.replace("SCAN", scan))
    child = stage.api(
        KFP_TRIGGERS_OBJECTS__ENDPOINT=minio.store.endpoint,
        KFP_TRIGGERS_OBJECTS__ACCESS_KEY=minio.store.access_key,
        KFP_TRIGGERS_OBJECTS__SECRET_KEY=minio.store.secret_key,
        KFP_TRIGGERS_PACE__NOTICE=str(NOTICE),
    )
    if scan != "off":
        until(lambda: _scan(stage)[1], what="it has looked")
    return child


def _scan(stage: Stage) -> tuple[int, bool]:
    """How many events only the scan told of, and whether it has come to an end without a problem."""
    with stage.store() as store:
        rows = store.scans.list()
    return sum(row.found for row in rows), bool(rows) and all(row.ended_at and not row.problem for row in rows)


def settled(stage: Stage, minio: Minio, account: Account) -> None:
    """The oracle, and that it holds once another scan has come round."""
    account.recovered(stage.settled(minio.puts))
    time.sleep(EVERY + NOTICE + 0.5)
    stage.settled(minio.puts)


def test_F22_what_waits_in_its_queue_comes_when_the_api_is_back(  # noqa: N802
    stage: Stage, minio: Minio, account: Account
) -> None:
    one = api(stage, minio, "off")
    buckets.report(minio.store, "user-ids", minio.hook)
    minio.put(2)
    stage.settled(2)
    one.kill()
    minio.put(5)
    time.sleep(RESENT)
    api(stage, minio, "off")
    settled(stage, minio, account)
    assert max(account.seconds) <= bound() + 2 * RESENT


def test_F22_what_waits_in_its_queue_and_was_found_meanwhile_is_one_event(  # noqa: N802
    stage: Stage, minio: Minio, account: Account
) -> None:
    one = api(stage, minio)
    buckets.report(minio.store, "user-ids", minio.hook)
    one.kill()
    minio.put(5)
    api(stage, minio)
    settled(stage, minio, account)
    until(lambda: not list((minio.folder / "queue").rglob("*.event*")), what="its queue is empty")
    stage.settled(minio.puts)
    assert max(account.seconds) <= bound() + EVERY + NOTICE


@pytest.mark.parametrize("turn", range(3))
def test_F22_it_dies_between_a_put_and_its_notification(  # noqa: N802
    stage: Stage, minio: Minio, account: Account, turn: int
) -> None:
    one = api(stage, minio)
    buckets.report(minio.store, "user-ids", minio.hook)
    os.kill(one.pid, signal.SIGSTOP)
    minio.put(1 + 4 * turn)
    minio.kill()
    time.sleep(EVERY)
    os.kill(one.pid, signal.SIGCONT)
    time.sleep(EVERY)  # the scan finds nobody
    minio.start()
    settled(stage, minio, account)
    assert max(account.seconds) <= bound() + EVERY + NOTICE + 3


@pytest.mark.parametrize("minio", [2], indirect=True)
def test_F22_its_queue_is_full(stage: Stage, minio: Minio, account: Account) -> None:  # noqa: N802
    one = api(stage, minio)
    buckets.report(minio.store, "user-ids", minio.hook)
    one.kill()
    minio.put(8)
    minio.put(1, "incoming/1.csv")  # written over, which in a bucket with versions is an event of its own
    api(stage, minio)
    settled(stage, minio, account)
    assert _scan(stage)[0] >= 9 - 2 - 2  # what was in its queue, or on its way
    assert max(account.seconds) <= bound() + EVERY + NOTICE


@quick
def test_F22_nobody_was_told(stage: Stage, minio: Minio, account: Account) -> None:  # noqa: N802
    minio.put(3, "history/{}.csv")
    time.sleep(1.1)  # its clock is told in whole seconds
    one = api(stage, minio)
    minio.puts = 0
    minio.put(4)
    settled(stage, minio, account)
    one.kill()
    minio.put(4)
    minio.put(1, "incoming/zero %2F+é/")
    api(stage, minio)
    settled(stage, minio, account)
    assert _scan(stage)[0] == minio.puts == 9
    assert max(account.seconds) <= bound() + EVERY + NOTICE
