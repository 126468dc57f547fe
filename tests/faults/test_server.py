"""F1 to F8 where the store is PostgreSQL: the API dies, the server dies, its disk fails, its answers are lost.

The server is one of this module's own: it is killed, stopped and starved.
"""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import postgres
import psycopg
import pytest
from cutting import Cutting
from faults.report import Account
from faults.stage import PACE, Stage, bound, until
from faults.test_disk import ready
from faults.test_syscalls import SYNC, accepted, answer_of, first
from faults.tracing import CALLS, Call, calls, needs_to_trace_others, straced, traced
from world import notification

pytestmark = [pytest.mark.faults, pytest.mark.store("postgres")]
DOOR = ["writer.before_commit", "writer.after_commit", "event.stored", "door.before_2xx"]
DISK = "trace=pwrite64,fdatasync,fsync,sendto,recvfrom"


@pytest.fixture(scope="module")
def cluster() -> Iterator[postgres.Server]:
    with postgres.server(log_min_messages="panic") as one:
        postgres.migrated(one)
        yield one


@pytest.fixture
def postgres_server(cluster: postgres.Server) -> Iterator[postgres.Server]:
    """Running before each test and after it, with its settings as they were."""
    yield cluster
    if not answers(cluster):
        cluster.kill()
        cluster.start(fsync="on")


def answers(server: postgres.Server) -> bool:
    try:
        return bool(server.execute("select 1"))
    except psycopg.OperationalError:
        return False


def name_of(stage: Stage) -> str:
    return stage.settings.store.url.rpartition("/")[2]


def rows(server: postgres.Server, stage: Stage) -> set[str]:
    """Keys of the objects that it has been told of."""
    return {one for (one,) in server.execute("select subject from event", database=name_of(stage))}


@pytest.mark.parametrize("point", DOOR)
def test_F01_killed_at_the_door_no_2xx_is_without_its_row(stage: Stage, account: Account, point: str) -> None:  # noqa: N802
    """At the N-th pass, with others under way; who heard nothing sends again."""
    sent = 0
    for number in (1, 2, 7):
        api = stage.api(f"{point}=kill@{number}")
        bodies = [stage.body() for _ in range(number + 16)]
        with ThreadPoolExecutor(4) as senders:
            told = dict(zip(bodies, senders.map(stage.post, bodies), strict=True))
        assert api.ended() == -signal.SIGKILL
        assert 0 in told.values()
        restarted = time.monotonic()
        living = stage.api()
        for body, status in told.items():
            assert stage.post(body) in ({200} if status == 202 else {200, 202}), status
        sent += len(told)
        stage.settled(sent, within=60)
        account.recovered(time.monotonic() - restarted)
        living.kill()


@pytest.mark.parametrize(
    ("count", "at_once"), [(8, 1), pytest.param(32, 32, marks=pytest.mark.quick)], ids=["one_at_a_time", "all_at_once"]
)
def test_F02_the_servers_answer_to_the_commit_comes_before_the_2xx(  # noqa: N802
    stage: Stage, count: int, at_once: int
) -> None:
    needs_to_trace_others()
    api = stage.api()
    with straced(api, "-e", f"trace={CALLS},recvfrom") as log:
        ids = accepted(stage, count, at_once)
    found = calls(log)
    for marker, delivery_id in ids.items():
        told = first(found, {"sendto"}, delivery_id)
        assert "INSERT INTO delivery" in found[told].told, found[told].told[:200]
        committed = after(found, told, "sendto", "COMMIT", begins=True)
        assert after(found, committed, "recvfrom", "COMMIT", begins=False) < answer_of(found, delivery_id), marker
    stage.settled(count)


@pytest.mark.quick
def test_F02_the_servers_fsync_comes_before_its_answer_to_the_commit(  # noqa: N802
    stage: Stage, postgres_server: postgres.Server
) -> None:
    """The commit's record is written after the COMMIT was read, so the fsync that covers it begins after that, too."""
    needs_to_trace_others()
    api = stage.api()
    log = api.log.with_name("server.strace")
    os.kill(api.pid, signal.SIGSTOP)  # so that no session begins between the look at them and strace
    with traced(log, postgres_server.processes(), "-e", DISK):
        os.kill(api.pid, signal.SIGCONT)
        ids = accepted(stage, 24, 8)
    found = calls(log)
    for delivery_id in ids.values():
        told = next(place for place, one in enumerate(found) if one.name == "recvfrom" and delivery_id in one.told)
        asked = after(found, told, "recvfrom", "COMMIT", begins=False)
        answered = after(found, asked, "sendto", "COMMIT", begins=True)
        assert synced(found[asked:answered]), f"{delivery_id}: told committed before the log was synced"
    stage.settled(24)


def after(found: Sequence[Call], place: int, name: str, word: str, *, begins: bool) -> int:
    """The next such call on the same connection, of the same process, that has this word in its data."""
    here = found[place]
    for number, one in enumerate(found[place + 1 :], place + 1):
        fits = one.name == name and word in one.told and (one.begins if begins else one.ends)
        if fits and (one.file == here.file):
            return number
    raise AssertionError(f"no {name} of {word} after {here.told[:100]}")


def synced(found: Sequence[Call]) -> bool:
    """Whether an fsync of the log began and ended in here, by whichever process."""
    begun = set[tuple[str, str]]()
    for one in found:
        if one.name in SYNC and "pg_wal" in one.told:
            if one.begins:
                begun.add((one.thread, one.name))
            if one.ends and (one.thread, one.name) in begun:
                return True
    return False


def test_F03_what_was_acknowledged_outlives_a_death_of_the_server(  # noqa: N802
    stage: Stage, account: Account, postgres_server: postgres.Server
) -> None:
    """Killed right after each 2xx, every process of it. What only they had is gone; that the log is on the disk by
    then is F2's proof."""
    stage.api()
    for number in range(1, 9):
        key = f"{stage.home.name}/{number}.csv"
        stage.deliver(stage.body(key))
        postgres_server.kill()
        began = time.monotonic()
        postgres_server.start()
        assert f"s3://user-ids/{key}" in rows(postgres_server, stage)
        stage.settled(number)
        account.recovered(time.monotonic() - began)
        assert account.seconds[-1] <= bound(PACE["settle"])


@pytest.mark.parametrize("times", ["once", "for_ever"])
def test_F04_after_an_io_error_on_the_log_no_2xx_is_false(  # noqa: N802
    stage: Stage, account: Account, postgres_server: postgres.Server, times: str
) -> None:
    """PostgreSQL panics rather than trust the disk again, and recovers from its log; while it cannot, it is away."""
    needs_to_trace_others()
    api = stage.api()
    stage.deliver()
    stage.settled(1)
    log, body = api.log.with_name(f"server-{times}.strace"), stage.body()
    inject = f"inject=fdatasync:error=EIO:when={'1' if times == 'once' else '1+'}"
    with traced(log, postgres_server.processes(), "-e", "trace=fdatasync", "-e", inject):
        assert stage.post(body) == 503
        if times == "for_ever":
            assert [stage.post(body) for _ in range(2)] == [503] * 2
            until(lambda: ready(stage) == 503)
    if times == "for_ever":
        postgres_server.kill()
        postgres_server.start()
    healed = time.monotonic()
    stage.deliver(body)
    until(lambda: ready(stage) == 200)
    stage.settled(2)
    account.recovered(time.monotonic() - healed)
    assert account.seconds[-1] <= bound(PACE["settle"])
    assert api.ended(within=0) is None


@pytest.fixture
def small_disk(postgres_server: postgres.Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A file system of 48 MiB with the tablespace `small`; whoever uses it has dropped his database before."""
    folder = postgres_server.folder / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=48m", "none", str(folder)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        folder.rmdir()
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()[-200:]}")
    space = folder / "space"
    space.mkdir()
    os.chown(space, postgres_server.folder.stat().st_uid, -1)
    postgres_server.execute(f"create tablespace small location '{space}'")
    try:
        yield folder
    finally:
        postgres_server.execute("drop tablespace small")
        subprocess.run(["umount", str(folder)], check=True)
        folder.rmdir()


def test_F05_on_a_full_disk_it_answers_503_and_goes_on_when_there_is_room(  # noqa: N802
    small_disk: Path, stage: Stage, account: Account, postgres_server: postgres.Server
) -> None:
    postgres_server.execute(f"alter database {name_of(stage)} set tablespace small")
    api = stage.api()
    stage.deliver()
    stage.settled(1)
    ballast = small_disk / "ballast"
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(b"\0" * 4096):
            pass
    bodies = [large(stage, number) for number in range(12)]
    taken = [body for body in bodies if stage.post(body) == 202]
    assert len(taken) < len(bodies)
    assert stage.post(bodies[-1]) == 503
    status, said = stage.command("runs", "list", "--json")
    assert (status, '"succeeded"' in said) == (0, True)
    ballast.unlink()
    healed = time.monotonic()
    for body in bodies:
        stage.deliver(body)
    stage.settled(1 + len(bodies), within=60)
    account.recovered(time.monotonic() - healed)
    assert account.seconds[-1] <= bound(PACE["settle"] + 10)  # a dozen runs, one after the other on a slow machine
    assert api.ended(within=0) is None


def large(stage: Stage, number: int) -> bytes:
    """A notification of 200 kB that does not compress to nothing."""
    key = f"{stage.home.name}/large-{number}.csv"
    return notification(key, request=key, sequencer=f"187A5B1C{number:08X}", pad=os.urandom(100_000).hex())


def of_another_program(server: postgres.Server, name: str) -> None:
    server.execute("drop schema public cascade; create schema public; create table payroll (id int)", database=name)


def newer(server: postgres.Server, name: str) -> None:
    server.execute("update alembic_version set version_num = '9999'", database=name)


def asynchronous(server: postgres.Server, name: str) -> None:
    server.execute(f"alter database {name} set synchronous_commit = off")


def without_fsync(server: postgres.Server, name: str) -> None:
    server.stop()
    server.start(fsync="off")


@pytest.mark.quick
@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (of_another_program, "the store's schema is empty"),
        (newer, "9999"),
        (asynchronous, "synchronous_commit=off"),
        (without_fsync, "fsync=off"),
    ],
)
def test_F07_a_store_that_is_not_ours_or_forgets_is_refused_by_name(  # noqa: N802
    stage: Stage, postgres_server: postgres.Server, spoil: Callable[[postgres.Server, str], None], reason: str
) -> None:
    try:
        spoil(postgres_server, name_of(stage))
        tables = "select count(*) from pg_tables where schemaname = 'public'"
        before = postgres_server.execute(tables, database=name_of(stage))
        api = stage.start("api")
        assert api.ended() in {2, 3}
        assert reason in api.log.read_text()
        assert "Traceback" not in api.log.read_text()
        assert postgres_server.execute(tables, database=name_of(stage)) == before
    finally:
        if spoil is without_fsync:
            postgres_server.stop()
            postgres_server.start(fsync="on")


def test_F07_a_damaged_page_stops_the_writing_with_its_reason(  # noqa: N802
    stage: Stage, postgres_server: postgres.Server
) -> None:
    api = stage.api()
    stage.deliver()
    stage.settled(1)
    api.kill()
    ((path,),) = postgres_server.execute("select pg_relation_filepath('delivery')", database=name_of(stage))
    postgres_server.stop()
    with (postgres_server.folder / "data" / path).open("r+b") as file:
        file.write(os.urandom(8192))
    postgres_server.start()
    api = stage.api()
    body = stage.body()
    assert [stage.post(body) for _ in range(2)] == [503] * 2
    assert "invalid page in block 0" in api.log.read_text()


@pytest.mark.parametrize("how", [pytest.param("killed", marks=pytest.mark.quick), "stopped", "its_sessions_ended"])
def test_F08_the_server_goes_away_in_the_middle_of_traffic(  # noqa: N802
    stage: Stage, account: Account, postgres_server: postgres.Server, how: str
) -> None:
    api = stage.api()
    told: dict[str, int] = {}
    over = threading.Event()

    def send(number: int) -> None:
        while not over.is_set():
            key = f"{stage.home.name}/{number}-{len(told)}-{time.monotonic_ns()}.csv"
            stage.deliver(stage.body(key))
            told[key] = number

    with ThreadPoolExecutor(3) as pool:
        senders = [pool.submit(send, number) for number in range(3)]
        try:
            for _ in range(3):
                so_far = len(told)
                until(lambda so_far=so_far: len(told) > so_far + 10, what="deliveries are taken")
                disturb(postgres_server, how)
                healed = time.monotonic()
                so_far = len(told)
                until(lambda so_far=so_far: len(told) > so_far + 3, what="deliveries are taken again")
                account.recovered(time.monotonic() - healed)
                assert account.seconds[-1] <= bound()
        finally:
            over.set()
        for sender in senders:
            sender.result(60)
    assert {f"s3://user-ids/{key}" for key in told} == rows(postgres_server, stage)
    stage.settled(len(told), within=120)
    assert api.ended(within=0) is None


def disturb(server: postgres.Server, how: str) -> None:
    if how == "its_sessions_ended":
        for _ in range(10):
            server.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'kfp-triggers'"
            )
            time.sleep(0.05)
        return
    if how == "killed":
        server.kill()
    else:
        server.stop()
    server.start()


@pytest.mark.quick
@pytest.mark.parametrize("cut", ["before", "after"])
def test_F08_a_commit_of_which_nobody_hears_is_503_and_its_repeat_is_recognised(  # noqa: N802
    stage: Stage, account: Account, postgres_server: postgres.Server, cut: str
) -> None:
    wire = Cutting(postgres_server.port)
    try:
        stage.api(KFP_TRIGGERS_STORE__URL=postgres_server.url(name_of(stage), wire.port))
        body = stage.body(f"{stage.home.name}/cut.csv")
        wire.word, wire.cut = f"{stage.home.name}/cut.csv".encode(), cut
        assert stage.post(body) == 503
        healed = time.monotonic()
        assert stage.post(body) == (202 if cut == "before" else 200)
        stage.settled(1)
        account.recovered(time.monotonic() - healed)
        assert account.seconds[-1] <= bound(PACE["settle"])
        for child in stage.children:
            if child.ended(within=0) is None:
                child.kill()
    finally:
        wire.close()


@pytest.mark.parametrize("cut", ["before", "after"])
def test_F08_each_commit_about_a_run_may_go_unheard_of(  # noqa: N802
    stage: Stage, account: Account, postgres_server: postgres.Server, cut: str
) -> None:
    """The decision, the intent, the id, the moves, the end: one run, whichever it is."""
    wire = Cutting(postgres_server.port)
    through = postgres_server.url(name_of(stage), wire.port)
    try:
        for number in range(6):
            key = f"{stage.home.name}/{number}.csv"
            api = stage.api(KFP_TRIGGERS_STORE__URL=through)
            wire.word, wire.spared, wire.cut = b"run_transition", number, cut
            stage.deliver(stage.body(key))
            account.recovered(stage.settled(number + 1))
            assert account.seconds[-1] <= bound(PACE["settle"])
            api.kill()
            wire.cut = ""
    finally:
        wire.close()
