"""The store, on SQLite and on PostgreSQL: what it keeps once, who may work on a row, how a lock is granted."""

import math
import shutil
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.script import ScriptDirectory
from rows import NOW, arrival, claim, decided, object_event, one_event, push
from sqlalchemy import MetaData, func, select, text, update
from ulid import ULID

from service.errors import Refused, Temporary
from service.ledger import Rate
from service.lifecycle import ImpossibleMove, State
from service.records import EventState, Query, Transition
from service.settings import StoreSettings
from service.store import Store, migrate, pacing, tables
from service.store.database import Database, id_after, micros, moment
from service.store.sqlite import has_wal_reset_bug, sqlite_module
from service.store.writer import Writer
from triggers.reason import Reason


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    made = Store(StoreSettings(url=store_url))
    migrate.upgrade(made.database)
    yield made
    made.close()


def test_a_time_survives_the_store_exactly() -> None:
    instant = datetime(2026, 11, 21, 7, 34, 30, 123457, tzinfo=UTC)
    assert moment(micros(instant)) == instant


@pytest.mark.parametrize(
    ("version", "bad"),
    [
        ((3, 40, 1), True),
        ((3, 51, 2), True),
        ((3, 51, 3), False),
        ((3, 53, 4), False),
        ((3, 50, 6), True),
        ((3, 50, 7), False),
        ((3, 44, 6), False),
        ((3, 44, 5), True),
        ((3, 6, 23), False),
    ],
)
def test_a_sqlite_with_the_wal_reset_bug_is_known(version: tuple[int, int, int], bad: bool) -> None:
    assert has_wal_reset_bug(version) is bad


def test_the_linked_sqlite_is_a_sound_one_in_wal_with_full_sync(tmp_path: Path) -> None:
    database = Database(StoreSettings(url=f"sqlite:///{tmp_path / 'store.db'}"))
    with database.read() as connection:
        assert connection.exec_driver_sql("pragma journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("pragma synchronous").scalar() == 2
        version = str(connection.exec_driver_sql("select sqlite_version()").scalar())
    assert database.durability() == f"SQLite {version}, journal_mode=wal, synchronous=2"
    database.close()
    assert not has_wal_reset_bug(tuple(int(part) for part in version.split(".")))  # type: ignore[arg-type]


def test_without_the_wheel_pythons_own_sqlite_serves_or_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sqlite3

    monkeypatch.setitem(sys.modules, "pysqlite3.dbapi2", None)
    url = f"sqlite:///{tmp_path / 'own.db'}"
    if has_wal_reset_bug(sqlite3.sqlite_version_info):
        with pytest.raises(Refused, match=f"SQLite {sqlite3.sqlite_version} has the WAL-reset bug"):
            Store(StoreSettings(url=url))
    slower = Store(StoreSettings(url=url, journal="delete"))
    migrate.upgrade(slower.database)
    assert not slower.events.accept(arrival(object_event())).duplicate
    slower.close()


def test_an_older_schema_is_refused_with_what_to_do(empty_url: str) -> None:
    empty = Store(StoreSettings(url=empty_url))
    with pytest.raises(Refused, match="kfp-triggers migrate"):
        migrate.require_current(empty.database)
    empty.close()


def test_the_migrations_make_the_tables_that_the_code_knows(store: Store) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    from service.store.tables import metadata

    with store.database.read() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


def test_a_body_is_kept_as_bytes(store: Store) -> None:
    accepted = store.events.accept(arrival(object_event()))
    kept = store.events.delivery(accepted.delivery_id)
    assert kept is not None
    assert kept.size == 4


def test_a_repeated_delivery_is_known_by_its_transport_key(store: Store) -> None:
    first = store.events.accept(arrival(object_event()))
    again = store.events.accept(arrival(object_event()))
    assert (first.duplicate, again.duplicate) == (False, True)
    assert again.event_ids == first.event_ids


def test_two_deliveries_of_one_object_tell_of_one_event(store: Store) -> None:
    first = store.events.accept(arrival(object_event(), transport="webhook"))
    other = store.events.accept(arrival(object_event(), transport="reconcile"))
    assert other.duplicate
    assert other.event_ids == first.event_ids
    assert other.delivery_id != first.delivery_id


def test_a_ref_that_goes_there_and_back_is_three_events_and_a_repeat_is_none(store: Store) -> None:
    accepted = [
        store.events.accept(arrival(push(sha), transport=str(number)))
        for number, sha in enumerate(["b", "b", "a", "b"])
    ]
    assert [one.duplicate for one in accepted] == [False, True, False, False]
    assert len({one.event_ids[0] for one in accepted}) == 3


def test_many_deliveries_at_once_are_each_stored_once(store: Store) -> None:
    writer = Writer(store.database, at_most=1000)
    with ThreadPoolExecutor(16) as pool:
        keys = [f"{number % 40}.csv" for number in range(200)]
        accepted = list(pool.map(lambda key: writer.accept(arrival(object_event(key), transport=key)), keys))
    writer.close()
    assert sum(not one.duplicate for one in accepted) == 40


def test_a_poisonous_delivery_fails_alone(store: Store) -> None:
    writer = Writer(store.database, at_most=1000)
    poison = arrival(object_event("p"), transport="p", body=None)  # type: ignore[arg-type]
    with ThreadPoolExecutor(16) as pool:
        good = [pool.submit(writer.accept, arrival(object_event(str(n)), transport=str(n))) for n in range(50)]
        bad = pool.submit(writer.accept, poison)
        assert all(not future.result().duplicate for future in good)
        assert bad.exception() is not None
    writer.close()


def test_a_repeat_is_told_that_it_is_known_only_when_it_is_in_the_file_itself(tmp_path: Path) -> None:
    """A process that dies before its fsync leaves its commit in the log: who comes after it must not trust the log."""
    told, file = arrival(object_event("a.csv"), transport="one"), tmp_path / "store.db"

    def is_in_the_file() -> bool:
        alone = shutil.copy(file, tmp_path / "alone.db")  # without its log
        with closing(sqlite_module().connect(alone)) as connection:
            return bool(connection.execute("select 1 from delivery").fetchone())

    store = Store(StoreSettings(url=f"sqlite:///{file}"))
    migrate.upgrade(store.database)
    store.database.doubt.settle()
    store.events.accept(told)
    assert not is_in_the_file()
    writer = Writer(store.database, at_most=10)
    assert writer.accept(told).duplicate
    assert is_in_the_file()
    writer.close()
    store.close()


def test_a_full_queue_says_come_again(store: Store) -> None:
    gate = threading.Event()

    class Slow:
        doubt = store.database.doubt

        def write(self, **more: Any) -> object:
            gate.wait(10)
            return store.database.write(**more)

    writer = Writer(Slow(), at_most=1)  # type: ignore[arg-type]
    with ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(writer.accept, arrival(object_event(str(n)), transport=str(n))) for n in range(8)]
        first = next(as_completed(futures, timeout=7))  # before any could have waited out its patience
        assert isinstance(first.exception(), Temporary)
        gate.set()
    writer.close()


def test_one_of_many_claims_wins(store: Store) -> None:
    event_id = one_event(store)
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda n: store.events.claim(event_id, claim(holder=str(n))), range(8)))
    assert sum(item is not None for item in won) == 1


def test_a_claim_is_free_again_when_its_lease_is_over(store: Store) -> None:
    event_id = one_event(store)
    assert store.events.claim(event_id, claim(seconds=30))
    assert store.events.claim(event_id, claim(NOW + timedelta(seconds=29), holder="other")) is None
    assert store.events.claim(event_id, claim(NOW + timedelta(seconds=31), holder="other"))


def test_a_decision_by_one_who_lost_the_claim_is_not_written(store: Store) -> None:
    event_id = one_event(store)
    item = store.events.claim(event_id, claim(seconds=1))
    assert item is not None
    assert store.events.claim(event_id, claim(NOW + timedelta(seconds=2), holder="other"))
    assert store.decisions.settle(item, [], holder="me", now=NOW) is None
    found = store.events.get(event_id)
    assert found is not None
    assert found.state is EventState.ACCEPTED


def test_a_lock_lets_in_as_many_as_it_has_slots_the_oldest_first(store: Store) -> None:
    for number in range(4):
        decided(store, one_event(store, f"{number}"), f"k{number}", lock="train", lock_max=2)
    assert store.queue.admit(NOW) == ["k0", "k1"]
    assert store.queue.admit(NOW) == []
    cancelled = Transition(
        run_key="k0", at=NOW, before=State.READY, after=State.CANCELLED, reason=Reason.CANCEL_ASKED, detail=""
    )
    assert store.runs.move(cancelled)
    assert store.queue.admit(NOW) == ["k2"]


def test_a_run_moves_only_where_the_table_leads(store: Store) -> None:
    decided(store, one_event(store), "k")
    move = Transition(
        run_key="k", at=NOW, before=State.READY, after=State.SUCCEEDED, reason=Reason.OBSERVED_STATE, detail=""
    )
    with pytest.raises(ImpossibleMove):
        store.runs.move(move)


def test_a_run_declares_its_outputs_as_soon_as_it_is_decided(store: Store) -> None:
    event_id = one_event(store)
    decided(store, event_id, "k")
    assert [(edge.source, edge.relation) for edge in store.lineage.into("s3://out/x")] == [("run:k", "declared")]
    assert [edge.source for edge in store.lineage.into("run:k")] == [f"event:{event_id}"]


def test_the_account_names_what_is_late(store: Store) -> None:
    event_id = one_event(store)
    later = NOW + timedelta(minutes=5)
    found = store.account.verify(later, patience=timedelta(minutes=1), settle=timedelta(minutes=1))
    assert found["stuck"] == [f"event:{event_id}"]
    assert found["events"]["accepted"] == 1


def test_a_lease_has_one_holder_until_it_is_over_or_given_back(store: Store) -> None:
    assert store.leases.take("sweep", claim(holder="a"))
    assert not store.leases.take("sweep", claim(holder="b"))
    assert store.leases.take("sweep", claim(holder="a"))
    store.leases.give_back("sweep", "a")
    assert store.leases.take("sweep", claim(holder="b"))


def as_of(database: Database, revision: str) -> MetaData:
    """Bring an empty store to a schema of old; its tables as a process of that time knows them."""
    command.upgrade(migrate._config(database), revision)
    tables = MetaData()
    tables.reflect(database.engine)
    tables.remove(tables.tables["alembic_version"])
    return tables


def fill(database: Database, tables: MetaData) -> None:
    """A row for each table, which belong together, with every column that these tables have."""
    kinds = {"JSON": [], "BIGINT": 0, "INTEGER": 0, "BOOLEAN": False, "BLOB": b"", "BYTEA": b""}
    with database.write() as connection:
        for table in tables.sorted_tables:
            columns = {column.name: str(column.type) for column in table.columns}
            row = {name: kinds.get(kind, "ready" if name == "state" else "1" * 26) for name, kind in columns.items()}
            connection.execute(table.insert().values(row))


HEAD = str(ScriptDirectory(str(Path(migrate.__file__).parent / "migrations")).get_current_head())
BEFORE = [f"{number:04}" for number in range(1, int(HEAD))]


def test_a_store_with_runs_in_it_is_brought_up_to_date(empty_url: str) -> None:
    database = Database(StoreSettings(url=empty_url))
    fill(database, as_of(database, "0001"))
    assert migrate.upgrade(database) == ("0001", HEAD)
    with database.read() as connection:
        wanted = select(
            *(tables.run.c[name] for name in ("run_key", "pipeline_digest", "upload", "document", "subject"))
        )
        (row,) = connection.execute(wanted)
    assert tuple(row) == ("1" * 26, "", False, {}, "")
    database.close()


@pytest.mark.parametrize("revision", BEFORE)
def test_a_process_of_before_an_upgrade_goes_on_beside_the_new_one(empty_url: str, revision: str) -> None:
    database = Database(StoreSettings(url=empty_url))
    old = as_of(database, revision)
    assert migrate.upgrade(database) == (revision, HEAD)
    fill(database, old)
    with database.read() as connection:
        for table in old.sorted_tables:
            assert len(connection.execute(select(table)).all()) == 1
            assert len(connection.execute(select(tables.metadata.tables[table.name])).all()) == 1
    database.close()


def test_a_newer_schema_refuses_an_older_program_by_name(store: Store) -> None:
    with store.database.write() as connection:
        connection.execute(text("update alembic_version set version_num = '9999'"))
    for start in (migrate.upgrade, migrate.require_current):
        with pytest.raises(Refused, match=f"schema is 9999, which a newer version .* up to {HEAD}"):
            start(store.database)


def test_what_one_store_would_refuse_is_kept_and_shown_alike_on_both(store: Store) -> None:
    odd = "a\x00b\ud800c😀\\u0000"
    said = {odd: [odd, {"n": math.nan, "i": -math.inf}], "repository": "r", "branch": "main"}
    told = replace(push("b"), subject=odd, stream=odd, data=said)
    accepted = store.events.accept(arrival(told))
    found = store.events.get(accepted.event_ids[0])
    assert found is not None
    shown = "a\ufffdb\ufffdc😀\\u0000"
    assert found.event.subject == found.event.stream == shown
    assert found.event.data == {shown: [shown, {"n": None, "i": None}], "repository": "r", "branch": "main"}
    head = store.events.head("uploads", "r", "main")
    assert head is not None
    assert head.id == found.id
    assert store.events.accept(arrival(told, transport="again")).duplicate


def test_a_look_is_of_one_moment(store: Store) -> None:
    one_event(store, "a")
    with store.database.read() as connection:
        counted = select(func.count()).select_from(tables.event)
        before = connection.scalar(counted)
        one_event(store, "b")
        assert connection.scalar(counted) == before


def test_ids_of_a_ref_and_of_runs_sort_as_they_came_though_a_clock_was_ahead(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    ahead = str(ULID.from_datetime(datetime(2099, 1, 1, tzinfo=UTC)))
    assert id_after(ahead) == str(ULID.from_int(int(ULID.from_str(ahead)) + 1))
    first = store.events.accept(arrival(push("b"), transport="0")).event_ids[0]
    with store.database.write() as connection:
        connection.execute(update(tables.event).where(tables.event.c.id == first).values(id=ahead))
    accepted = [store.events.accept(arrival(push(sha), transport=sha + str(n))) for n, sha in enumerate("ab")]
    ids = [one.event_ids[0] for one in accepted]
    assert [ahead, *ids] == sorted({ahead, *ids})
    decided(store, one_event(store), "k0")
    with store.database.write() as connection:
        connection.execute(update(tables.run).values(id=ahead))
    decided(store, one_event(store, "b.csv"), "k1")
    assert [run.run_key for run in store.runs.list(Query())] == ["k1", "k0"]


def test_a_clock_that_was_set_back_costs_a_backend_no_more_than_a_burst(store: Store) -> None:
    rate = Rate(per_second=5, burst=3)
    for now in (NOW, NOW - timedelta(hours=1)):
        with store.database.write() as connection:
            taken = [pacing.take(connection, "kfp", rate, now + timedelta(seconds=step)) for step in range(4)]
        assert taken[-1]


def test_a_body_that_tells_of_a_thing_twice_tells_of_one_event(store: Store) -> None:
    accepted = store.events.accept(arrival(object_event(), object_event()))
    assert len(set(accepted.event_ids)) == 1
    assert store.events.get(accepted.event_ids[0]) is not None
