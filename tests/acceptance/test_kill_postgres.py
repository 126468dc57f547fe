"""The same with the store on PostgreSQL, which is killed, too. The runs go to the stub."""

import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest
from acceptance.conftest import Running, brought_up
from acceptance.test_kill import check_one_run_one_output, drop, in_the_middle, stored, wait


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with brought_up(tmp_path_factory.mktemp("postgres"), "kfp", on_postgres=True) as world:
        yield world


def test_one_run_one_output_when_all_are_killed_in_the_middle(running: Any) -> None:
    key = drop(running, "middle-all")
    in_the_middle(running, key)
    for name in ("api", "worker", "redis"):
        running.supervisor.kill(name)
    check_one_run_one_output(running, key)


def test_one_run_one_output_when_the_database_is_killed_in_the_middle(running: Any) -> None:
    key = drop(running, "middle-postgres")
    in_the_middle(running, key)
    running.postgres.stop(signal.SIGKILL)
    meanwhile = drop(running, "no-postgres")
    time.sleep(2)
    running.postgres.start()
    check_one_run_one_output(running, key)
    check_one_run_one_output(running, meanwhile)


def test_when_even_the_database_is_killed_as_soon_as_the_event_is_stored_the_run_still_comes(running: Any) -> None:
    key = drop(running, "at-once")
    wait(lambda: stored(running, f"s3://user-ids/{key}"))
    running.postgres.stop(signal.SIGKILL)
    for name in ("api", "worker", "redis"):
        running.supervisor.kill(name)
    running.postgres.start()
    check_one_run_one_output(running, key)
