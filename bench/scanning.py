"""What a scan of a large bucket costs: `python bench/scanning.py [OBJECTS]`, on a MinIO and a store of its own.

Three looks: at a bucket whose objects are all history; at one whose objects are all of the last day, so that each is
looked up in the store; and the taking in of those that are new. Prints a table.
"""

import io
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path

from service import buckets, embedded, log
from service.flow.reconcile import Scope, batches, described, pages, scanned, take_in, until
from service.settings import load
from service.store.database import Database
from service.store.migrate import upgrade
from service.supervise import Supervisor
from service.wiring import opened

NEW = 5_000
SOURCES = "apiVersion: kfp-triggers/v1\nsources: {uploads: {type: minio, auth: none, buckets: [user-ids]}}\n"


def main(objects: int) -> None:
    """All three."""
    with tempfile.TemporaryDirectory() as folder, store(Path(folder), objects):
        settings = load(Path(folder))
        log.set_up(settings.log.model_copy(update={"level": "warning"}))
        database = Database(settings.store)
        upgrade(database)
        database.close()
        with opened(settings, rings=False) as app:
            report("before", lambda: 0)
            ((source, _),) = scanned(app)

            def scope(since: datetime) -> Scope:
                return Scope(source=source, bucket="user-ids", prefix="", since=since, until=until(app))

            report(f"{objects} objects, all history", lambda: sum(p.seen for p in pages(app, scope(datetime.now(UTC)))))
            today = datetime.now(UTC) - timedelta(days=1)
            report(f"{objects} objects, all of today", lambda: sum(p.seen for p in pages(app, scope(today))))
            new = list(islice((one for page in pages(app, scope(today)) for one in page.new), NEW))
            report(
                f"{NEW} of them taken in",
                lambda: sum(len(take_in(app, source, described(app, some)).new_event_ids) for some in batches(new)),
            )


def report(what: str, do: Callable[[], int]) -> None:
    """A line of the table."""
    began, worked = time.monotonic(), time.process_time()
    count = do()
    took, cpu = time.monotonic() - began, time.process_time() - worked
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{what:<32} {took:7.1f} s, {cpu:6.1f} s of them ours  {count:>8}  peak memory {peak:.0f} MiB", flush=True)


@contextmanager
def store(home: Path, objects: int) -> Iterator[None]:
    """A MinIO with so many objects in a bucket, and the home's settings on it."""
    (home / "data").mkdir()
    (home / "sources.yaml").write_text(SOURCES)
    port = embedded.ports(home / "data", ["minio"])["minio"]
    s3 = embedded.s3(home / "data", port, {})
    told = {"ENDPOINT": s3.endpoint, "ACCESS_KEY": s3.access_key, "SECRET_KEY": s3.secret_key}
    os.environ.update({f"KFP_TRIGGERS_OBJECTS__{name}": value for name, value in told.items()})
    with Supervisor(home / "data", lambda _: None) as supervisor:
        supervisor.start(embedded.minio(home / "data", port, []))
        minio = buckets.client(s3)
        buckets.make(s3, ["user-ids"])
        with ThreadPoolExecutor(8) as pool:
            put = lambda n: minio.put_object("user-ids", f"incoming/{n // 1000:03}/{n}.csv", io.BytesIO(b"1\n"), 2)  # noqa: E731
            for _ in pool.map(put, range(objects)):
                pass
        yield


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)
