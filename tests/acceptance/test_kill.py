"""kill -9 of the API, the worker and Redis, alone and all at once, while a file is being scored.

One run, one output, a clean account: with Redis back, and with Redis gone for good.
"""

import io
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pyarrow.parquet as pq
import pytest

from service.buckets import client
from service.records import Query, RunRecord
from service.settings import load
from service.store import Store

IDS = b"user_id\n1000003\n1000004\n9000001\n"


def drop(running: Any, name: str) -> str:
    key = f"incoming/kill/{name}.csv"
    client(running.stack.s3).put_object("user-ids", key, io.BytesIO(IDS), len(IDS))
    return key


def wait(look: Callable[[], Any], within: float = 90) -> Any:
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        if found := look():
            return found
        time.sleep(0.1)
    raise AssertionError(f"not within {within} s")


def runs_of(running: Any, key: str) -> list[RunRecord]:
    with store_of(running) as store:
        return [run for run in store.runs.list(Query(limit=500)) if key in run.params.values()]


def stored(running: Any, subject: str) -> bool:
    with store_of(running) as store:
        return any(one.event.subject == subject for one in store.events.list(Query(limit=500)))


@contextmanager
def store_of(running: Any) -> Iterator[Store]:
    """It needs no API, and no process of its own for each look."""
    store = Store(load(running.stack.home).store)
    try:
        yield store
    finally:
        store.close()


def check_one_run_one_output(running: Any, key: str) -> None:
    (run,) = wait(lambda: [run for run in runs_of(running, key) if run.recorded_at])
    assert len(runs_of(running, key)) == 1
    assert run.state == "succeeded", run.error
    assert running.executions(run.run_key) == 1
    argv = [sys.executable, "-m", "service.cli", "--home", str(running.stack.home), "verify"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    if running.stub is None:
        check_output(running, run, key)


def check_output(running: Any, run: RunRecord, key: str) -> None:
    store = client(running.stack.s3)
    folder = str(run.params["output_file_name"]).rpartition("/")[0]
    stem = key.rpartition("/")[2].removesuffix(".csv")
    made = [item for item in store.list_objects("predictions", f"{folder}/") if f"/{stem}-" in str(item.object_name)]
    assert len(made) == 1
    versions = list(store.list_objects("predictions", str(made[0].object_name), include_version=True))
    assert len(versions) == 1
    table = pq.read_table(io.BytesIO(store.get_object("predictions", str(made[0].object_name)).read()))
    assert table.column("line").to_pylist() == [2, 3, 4]


def in_the_middle(running: Any, key: str) -> None:
    """Once the run is being executed: asked of the API, for a command takes longer than some runs."""

    def look() -> bool:
        try:
            found = running.get("runs", limit=500)["items"]
        except httpx.HTTPError:  # killed by the test before, and not up again
            return False
        return any(key in run["params"].values() and run["state"] in {"submitted", "running"} for run in found)

    wait(look)


@pytest.mark.parametrize("victims", [("api",), ("worker",), ("redis",), ("api", "worker", "redis")], ids="+".join)
def test_one_run_one_output_whoever_is_killed_in_the_middle(running: Any, victims: tuple[str, ...]) -> None:
    key = drop(running, "middle-" + "-".join(victims))
    in_the_middle(running, key)
    for name in victims:
        running.supervisor.kill(name)
    check_one_run_one_output(running, key)


def test_killed_as_soon_as_the_event_is_stored_the_run_still_comes(running: Any) -> None:
    key = drop(running, "at-once")
    wait(lambda: stored(running, f"s3://user-ids/{key}"))
    for name in ("api", "worker", "redis"):
        running.supervisor.kill(name)
    check_one_run_one_output(running, key)


def test_with_redis_gone_for_good_the_work_is_done_without_it(running: Any) -> None:
    redis = running.supervisor.process("redis")
    running.supervisor.stop("redis")
    try:
        before = drop(running, "no-redis")
        in_the_middle(running, before)
        running.supervisor.kill("api")
        running.supervisor.kill("worker")
        check_one_run_one_output(running, before)
        after = drop(running, "still-no-redis")
        check_one_run_one_output(running, after)
    finally:
        running.supervisor.start(redis)
