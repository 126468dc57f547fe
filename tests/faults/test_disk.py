"""F1 to F7: the API dies at any moment, and the disk under the store fails. Real processes, real system calls."""

import os
import random
import signal
import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from faults.powerloss import losses, placed
from faults.report import Account
from faults.stage import Stage, until
from faults.test_syscalls import accepted
from faults.tracing import calls, needs_strace, straced

from service.store.sqlite import sqlite_module

pytestmark = [pytest.mark.faults, pytest.mark.store("sqlite")]
DEATHS = 12  #: fsyncs of the writer at which F1 dies, one after the other
DISK = "trace=pwrite64,fsync,fdatasync,write,writev,sendto"


def database(stage: Stage) -> Path:
    return Path(stage.settings.store.url.removeprefix("sqlite:///"))


def ready(stage: Stage) -> int:
    return httpx.get(f"http://127.0.0.1:{stage.port}/readyz", timeout=20).status_code


def answers_until_death(stage: Stage, bodies: Sequence[bytes]) -> dict[bytes, int]:
    """By body; 0 for none, which is the last."""
    answers = {}
    for body in bodies:
        answers[body] = stage.post(body)
        if answers[body] == 0:
            break
    return answers


@pytest.mark.parametrize("deaths", [pytest.param(range(1, 4), marks=pytest.mark.quick), range(4, DEATHS + 1)], ids=str)
def test_F01_killed_at_an_fsync_no_2xx_is_without_its_row(  # noqa: N802
    stage: Stage, account: Account, deaths: range
) -> None:
    """The N-th fsync of any thread that writes is its process's last call. Who heard nothing sends again."""
    needs_strace()
    sent = 0
    for number in deaths:
        api = stage.api()
        kill = f"inject=fsync,fdatasync:signal=SIGKILL:when={number}"
        with straced(api, "-e", "trace=fsync,fdatasync", "-e", kill):
            answers = answers_until_death(stage, [stage.body() for _ in range(DEATHS + 5)])
        assert api.ended() == -signal.SIGKILL
        restarted = time.monotonic()
        living = stage.api()
        for body, status in answers.items():
            again = stage.post(body)
            assert again in ({200} if status == 202 else {200, 202}), (status, again)
        sent += len(answers)
        stage.settled(sent)
        account.recovered(time.monotonic() - restarted)
        living.kill()


@pytest.mark.parametrize("number", [1, 2, 3, 5, 8])
def test_F08_killed_inside_of_a_commit_nothing_is_half_there(  # noqa: N802
    stage: Stage, account: Account, number: int
) -> None:
    """What a lost connection is to PostgreSQL: the commit's pages are partly in the log, and nobody hears of it."""
    needs_strace()
    api = stage.api()
    with straced(api, "-e", "trace=pwrite64", "-e", f"inject=pwrite64:signal=SIGKILL:when={number}"):
        answers = answers_until_death(stage, [stage.body() for _ in range(DEATHS)])
    assert api.ended() == -signal.SIGKILL
    restarted = time.monotonic()
    stage.api()
    for body, status in answers.items():
        assert stage.post(body) in ({200} if status == 202 else {200, 202})
    stage.settled(len(answers))
    account.recovered(time.monotonic() - restarted)


@pytest.mark.quick
def test_F03_what_was_acknowledged_outlives_a_loss_of_power(  # noqa: N802
    stage: Stage, account: Account, chance: random.Random, tmp_path: Path
) -> None:
    needs_strace()
    api = stage.api()
    os.kill(api.pid, signal.SIGSTOP)
    paths = [database(stage), database(stage).with_name(f"{database(stage).name}-wal")]
    before = {str(path): path.read_bytes() if path.exists() else b"" for path in paths}
    with straced(api, "-xx", "-e", DISK) as log:
        os.kill(api.pid, signal.SIGCONT)
        accepted(stage, 40, 8)
    tried = 0
    for known, files in losses(calls(log), before, chance):
        tried += 1
        with closing(sqlite_module().connect(placed(tmp_path / f"loss-{tried}", files))) as left:
            assert left.execute("pragma integrity_check").fetchall() == [("ok",)]
            found = {row[0] for row in left.execute("select id from delivery")}
        assert known <= found, f"after {tried} answers {len(known - found)} are lost"
    assert tried == 40
    account.tries = tried


@pytest.mark.quick
@pytest.mark.parametrize("times", ["once", "for_ever"])
def test_F04_after_an_io_error_nothing_is_accepted_until_the_file_passed_a_check(  # noqa: N802
    stage: Stage, account: Account, times: str
) -> None:
    needs_strace()
    api = stage.api()
    stage.deliver()
    stage.settled(1)
    when = "1" if times == "once" else "1+"
    body = stage.body()
    with straced(api, "-e", "trace=fsync,fdatasync", "-e", f"inject=fsync,fdatasync:error=EIO:when={when}"):
        until(lambda: "store_in_doubt" in api.log.read_text(), what="the error is seen")
        if times == "for_ever":
            assert [stage.post(body) for _ in range(3)] == [503] * 3
            assert ready(stage) == 503
            assert api.ended(within=0) is None
        else:
            stage.deliver(body)
    healed = time.monotonic()
    stage.deliver(body)
    until(lambda: ready(stage) == 200)
    assert "store_reopened" in api.log.read_text()
    stage.settled(2)
    account.recovered(time.monotonic() - healed)


@pytest.mark.quick
def test_F05_on_a_full_disk_it_answers_503_and_goes_on_when_there_is_room(  # noqa: N802
    stage: Stage, account: Account
) -> None:
    needs_strace()
    api = stage.api()
    stage.deliver()
    stage.settled(1)
    body = stage.body()
    with straced(api, "-e", "trace=pwrite64", "-e", "inject=pwrite64:error=ENOSPC:when=1+"):
        assert [stage.post(body) for _ in range(3)] == [503] * 3
        assert ready(stage) == 503
        status, said = stage.command("runs", "list", "--json")
        assert (status, '"succeeded"' in said) == (0, True)
    healed = time.monotonic()
    stage.deliver(body)
    stage.settled(2)
    account.recovered(time.monotonic() - healed)
    assert api.ended(within=0) is None


def spoil_header(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"\0" * 512)


def newer(path: Path) -> None:
    with closing(sqlite3.connect(path)) as store:
        store.execute("update alembic_version set version_num = '9999'")
        store.commit()


@pytest.mark.quick
@pytest.mark.parametrize(("spoil", "reason"), [(spoil_header, "not a database"), (newer, "9999")])
def test_F07_a_store_that_is_not_ours_is_refused_and_left_alone(  # noqa: N802
    stage: Stage, spoil: object, reason: str
) -> None:
    assert callable(spoil)
    spoil(database(stage))
    before = database(stage).read_bytes()
    api = stage.start("api")
    assert api.ended() in {2, 3}
    assert reason in api.log.read_text()
    assert "Traceback" not in api.log.read_text()
    assert database(stage).read_bytes() == before


@pytest.mark.quick
def test_F07_a_damaged_page_stops_the_writing_with_its_reason(stage: Stage) -> None:  # noqa: N802
    with closing(sqlite3.connect(database(stage))) as store:
        (page,) = store.execute("select rootpage from sqlite_schema where name = 'delivery'").fetchone()
        (size,) = store.execute("pragma page_size").fetchone()
        store.execute("pragma wal_checkpoint(truncate)")
    with database(stage).open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(random.Random(7).randbytes(size))
    api = stage.api()
    body = stage.body()
    assert [stage.post(body) for _ in range(2)] == [503] * 2
    assert ready(stage) == 503
    assert "restore it from a backup" in api.log.read_text()
    assert database(stage).exists()
