"""Backup and restore: a checked copy while everything runs; after it was put back nothing is run twice."""

import shutil
import stat
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from command import Shell
from kfpserver import Stub, kfp_stub
from kfpworld import Place, account, decide, drop, made, runs, submitted, work

from service.errors import Refused
from service.ledger import Claim
from service.lifecycle import State
from service.records import Handling, Query
from service.store import backup
from service.store.sqlite import sqlite_module

ADA = Handling(what="store", key="", action="restored", by="ada", why="", at=datetime.now(UTC))


@pytest.fixture(scope="module")
def stub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stub]:
    with kfp_stub(tmp_path_factory.mktemp("stub")) as started:
        yield started


@pytest.fixture
def place(tmp_path: Path, stub: Stub) -> Place:
    found = made(tmp_path, stub)
    found.push()
    return found


@pytest.fixture
def shell(place: Place, monkeypatch: pytest.MonkeyPatch) -> Shell:
    monkeypatch.setenv("KFP_TRIGGERS_HOME", str(place.home))
    return Shell()


def test_a_backup_is_whole_and_private_while_others_write(shell: Shell, place: Place, tmp_path: Path) -> None:
    written, stop = [0], threading.Event()

    def write() -> None:
        with place.opened() as app:
            while not stop.is_set():
                drop(app, f"incoming/{written[0]}.csv", sequencer=f"187A5B1C{written[0]:08X}")
                written[0] += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        while written[0] < 20:
            pass
        before = written[0]
        found = shell.process("backup", str(tmp_path / "copy.db"), "--json").document
        after = written[0]
        while written[0] < after + 5:  # nobody was kept waiting
            pass
    finally:
        stop.set()
        writer.join()
    copy = tmp_path / "copy.db"
    assert found == {"file": str(copy), "bytes": copy.stat().st_size, "schema": backup.check(copy)}
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    connection = sqlite_module().connect(copy)
    assert before <= connection.execute("select count(*) from event").fetchone()[0] <= after + 1
    connection.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy.db", "home"]


def test_a_backup_goes_over_nothing_and_into_a_folder_by_the_time(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "there.db").write_text("precious")
    assert "is there already" in shell.run("backup", str(tmp_path / "there.db"), status=2).err
    assert (tmp_path / "there.db").read_text() == "precious"
    (tmp_path / "folder").mkdir()
    assert "checked" in shell.run("backup", str(tmp_path / "folder")).out
    assert [path.suffix for path in (tmp_path / "folder").iterdir()] == [".db"]


def test_after_yesterday_is_put_back_every_run_is_found_and_none_is_made_twice(
    shell: Shell, place: Place, stub: Stub, tmp_path: Path
) -> None:
    """At the backup: one run is submitted, one is ready, one waits for a lock, one event is yet to be decided."""
    place.rules(LOCKED)
    stub.script(running=0.2, pending=0.1)
    with place.opened() as app:
        decide(app, drop(app, "1.csv", sequencer="187A5B1C00000001"))
        work(app, lambda: submitted(app))
        decide(app, drop(app, "2.csv", sequencer="187A5B1C00000002"))
        decide(app, drop(app, "3.csv", sequencer="187A5B1C00000003"))
        drop(app, "4.csv", sequencer="187A5B1C00000004")
        assert {run.state for run in runs(app)} >= {State.WAITING}
        shell.run("backup", str(tmp_path / "yesterday.db"))
        work(app, lambda: len(runs(app)) == 4 and all(run.recorded_at for run in runs(app)))
        keys = {run.run_key: run.backend_id for run in runs(app)}
    counted = stub.counts()["executed_keys"]
    assert {key: counted[key] for key in keys} == dict.fromkeys(keys, 1)
    said = shell.run("restore", str(tmp_path / "yesterday.db"), "--force").out
    assert "the one before it is" in said
    with place.opened() as app:
        assert len([run for run in runs(app) if run.backend_id]) < 4
        work(app, lambda: len(runs(app)) == 4 and all(run.recorded_at for run in runs(app)))
        assert {run.run_key: run.backend_id for run in runs(app)} == keys
        assert account(app) == {}
        # What comes from now on is sent at once, and once.
        decide(app, drop(app, "5.csv", sequencer="187A5B1C00000005"))
        work(app, lambda: submitted(app))
        keys = {run.run_key: run.backend_id for run in runs(app)}
    counted = stub.counts()["executed_keys"]
    assert {key: counted[key] for key in keys} == dict.fromkeys(keys, 1)


def test_what_was_never_sent_before_is_sent_after(shell: Shell, place: Place, stub: Stub, tmp_path: Path) -> None:
    with place.opened() as app:
        decide(app, drop(app, "1.csv"))
    shell.run("backup", str(tmp_path / "copy.db"))
    shell.run("restore", str(tmp_path / "copy.db"), "--force")
    with place.opened() as app:
        work(app, lambda: submitted(app))
        (run,) = runs(app)
        reasons = [move.reason for move in app.ledger.runs.transitions(run.run_key)]
        assert reasons[1:] == ["submitting", "absent", "submitting", "accepted"]
    assert stub.counts()["executed_keys"][run.run_key] == 1


def test_a_store_in_use_is_not_replaced(shell: Shell, place: Place, tmp_path: Path) -> None:
    shell.run("backup", str(tmp_path / "copy.db"))
    now = datetime.now(UTC)
    with place.opened() as app:
        app.ledger.leases.take("sweep", Claim(holder="api-1:7:ab", now=now, until=now + timedelta(minutes=1)))
        drop(app, "1.csv")
        said = shell.run("restore", str(tmp_path / "copy.db"), "--force", status=2).err
        assert "is in use by api-1:7:ab: stop every process" in said
        app.ledger.leases.give_back("sweep", "api-1:7:ab")
    assert "--force puts it aside" in shell.run("restore", str(tmp_path / "copy.db"), status=2).err
    with place.opened() as app:
        assert len(app.ledger.events.list(Query())) == 1


def test_the_store_from_before_is_kept_and_can_be_put_back(shell: Shell, place: Place, tmp_path: Path) -> None:
    shell.run("backup", str(tmp_path / "empty.db"))
    with place.opened() as app:
        event_id = drop(app, "1.csv")
    aside = shell.json("restore", str(tmp_path / "empty.db"), "--force")["aside"]
    with place.opened() as app:
        assert app.ledger.events.list(Query()) == []
        assert [note.action for note in app.ledger.dead.notes("store", "")] == ["restored"]
    shell.run("restore", aside, "--force")
    with place.opened() as app:
        assert [one.id for one in app.ledger.events.list(Query())] == [event_id]


def test_a_copy_that_is_damaged_foreign_or_too_new_is_refused_and_nothing_changes(
    shell: Shell, place: Place, tmp_path: Path
) -> None:
    copy, bad = tmp_path / "copy.db", tmp_path / "bad.db"
    with place.opened() as app:
        for number in range(50):
            drop(app, f"{number}.csv", sequencer=f"187A5B1C{number:08X}")
    shell.run("backup", str(copy))
    store = backup.file_of(place.settings.store)
    before = store.read_bytes()

    body = bytearray(copy.read_bytes())
    body[8192:32768] = b"\xaa" * (32768 - 8192)
    bad.write_bytes(body)
    assert "damaged" in shell.run("restore", str(bad), "--force", status=2).err
    bad.write_text("hello")
    assert "is no store of kfp-triggers, or is damaged" in shell.run("restore", str(bad), "--force", status=2).err
    shutil.copy(copy, bad)
    connection = sqlite_module().connect(bad)
    connection.execute("update alembic_version set version_num = '9999'")
    connection.commit()
    connection.close()
    said = shell.run("restore", str(bad), "--force", status=2).err
    assert "has the schema 9999, this version knows 0" in said
    assert "there is no file" in shell.run("restore", str(tmp_path / "none.db"), "--force", status=2).err
    assert store.read_bytes() == before
    assert sorted(path.name for path in store.parent.iterdir() if "restor" in path.name) == []


def test_a_damaged_store_is_replaced(shell: Shell, place: Place, tmp_path: Path) -> None:
    with place.opened() as app:
        event_id = drop(app, "1.csv")
    shell.run("backup", str(tmp_path / "copy.db"))
    store = backup.file_of(place.settings.store)
    store.write_bytes(b"\xff" * 40_000)
    shell.run("restore", str(tmp_path / "copy.db"), "--force")
    with place.opened() as app:
        assert [one.id for one in app.ledger.events.list(Query())] == [event_id]


def test_killed_before_the_rename_the_store_is_what_it_was(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with place.opened() as app:
        event_id = drop(app, "1.csv")
    store = backup.file_of(place.settings.store)
    backup.back_up(store, tmp_path / "copy.db")

    def killed(*_: object) -> Path:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        backup.restore(place.settings.store, tmp_path / "copy.db", ADA, force=True)
    monkeypatch.undo()
    with place.opened() as app:
        assert [one.id for one in app.ledger.events.list(Query())] == [event_id]
        assert app.ledger.dead.notes("store", "") == []


def test_scans_begin_anew_after_a_restore(shell: Shell, place: Place, tmp_path: Path) -> None:
    """What came since the backup has had its run; only its event is gone."""
    with place.opened() as app:
        app.ledger.scans.begin("uploads", "user-ids", datetime.now(UTC))
    shell.run("backup", str(tmp_path / "copy.db"))
    shell.run("restore", str(tmp_path / "copy.db"), "--force")
    with place.opened() as app:
        assert app.ledger.scans.list() == []


def test_a_copy_of_an_older_schema_is_brought_up_to_date(shell: Shell, place: Place, tmp_path: Path) -> None:
    from alembic import command

    from service.settings import StoreSettings
    from service.store import migrate
    from service.store.database import Database

    old = tmp_path / "old.db"
    database = Database(StoreSettings(url=f"sqlite:///{old}"))
    command.upgrade(migrate._config(database), "0003")
    database.close()
    assert "its schema was 0003" in shell.run("restore", str(old), "--force").out
    with place.opened() as app:
        assert app.ledger.dead.notes("store", "")[0].action == "restored"


def test_on_postgresql_its_own_tools_are_named_and_the_mark_is_ours(shell: Shell, place: Place) -> None:
    from service.settings import StoreSettings

    with pytest.raises(Refused, match=r"pg_dump --format=custom --file=kfp-triggers.dump --host=db events") as found:
        backup.file_of(StoreSettings(url="postgresql://ada:hunter2@db/events"))
    assert "hunter2" not in str(found.value)
    assert "the store is marked" in shell.run("restore", "--mark").out
    with place.opened() as app:
        assert app.ledger.dead.notes("store", "")[0].why == "by other tools"
    assert "give the file to put back" in shell.run("restore", status=2).err


LOCKED = """
apiVersion: kfp-triggers/v1
rules:
  score:
    trigger: {source: uploads, event: object.created}
    run: {pipeline: scoring@v1, params: {uri: "${event.object}"}}
    limits: {lock: one, max: 1, when_busy: wait}
"""
