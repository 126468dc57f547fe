"""A PostgreSQL that keeps one waiting, is killed, or answers a commit with silence: nothing hangs, nothing is twice."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import postgres
import pytest
from cutting import Cutting
from rows import NOW, a_run, arrival, claim, count, object_event, one_event, promotion
from sqlalchemy import select, update

from service.errors import Temporary
from service.ledger import Ask, Judged
from service.lifecycle import State
from service.records import Accepted, PromotionState, Transition
from service.settings import StoreSettings
from service.store import Store, tables
from service.store import postgres as dialect
from service.store.database import Database
from service.store.writer import Writer
from triggers.reason import Reason


@pytest.fixture(scope="module")
def own() -> Iterator[postgres.Server]:
    """A server that a test may kill."""
    with postgres.server() as one:
        postgres.migrated(one)
        yield one


def test_a_row_that_another_holds_is_waited_for_only_so_long(stores: list[Store], postgres_url: str) -> None:
    event_id = one_event(stores[0])
    hasty = Store(StoreSettings(url=postgres_url, busy_timeout=0.3))
    with stores[0].database.write() as connection:
        connection.execute(update(tables.event).values(detail="held"))
        with pytest.raises(Temporary, match="lock timeout"):
            hasty.events.claim(event_id, claim())
    assert hasty.events.claim(event_id, claim())
    hasty.close()


def test_a_process_that_stands_still_in_the_middle_holds_nobody_up(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dialect, "IDLE", 0.5)
    still, other = Store(StoreSettings(url=postgres_url)), Store(StoreSettings(url=postgres_url))

    def stand_still() -> None:
        with still.database.write(alone="accept"):
            assert not other.events.accept(arrival(object_event())).duplicate  # once the first one's session is ended

    with pytest.raises(Temporary):
        stand_still()
    assert not still.events.accept(arrival(object_event("b"), transport="b")).duplicate
    still.close()
    other.close()


def test_two_that_wait_for_each_other_are_told_to_come_again(stores: list[Store]) -> None:
    ids = [one_event(stores[0], name) for name in "ab"]
    together = threading.Barrier(2)

    def cross(number: int) -> None:
        with stores[number].database.write() as connection:
            for step, event_id in enumerate(ids if number else ids[::-1]):
                connection.execute(update(tables.event).where(tables.event.c.id == event_id).values(detail="x"))
                if not step:
                    together.wait(10)

    with ThreadPoolExecutor(2) as pool:
        crossing = [pool.submit(cross, number) for number in range(2)]
        (refused,) = [error for one in crossing if (error := one.exception(30)) is not None]
    assert isinstance(refused, Temporary)
    assert "deadlock" in refused.detail


def test_when_every_connection_is_in_use_a_caller_is_told_to_come_again(postgres_url: str) -> None:
    database = Database(StoreSettings(url=postgres_url, busy_timeout=0.2))
    with ExitStack() as held:
        for _ in range(20):
            held.enter_context(database.read())
        with pytest.raises(Temporary, match="every connection is in use"), database.read():
            pass
    database.close()


# --- a server that goes and comes --------------------------------------------------------------------------------


def test_killed_in_the_middle_of_traffic_nothing_that_was_told_stored_is_lost(own: postgres.Server) -> None:
    with own.database("migrated") as url:
        stores = [Store(StoreSettings(url=url)) for _ in range(3)]
        writers = [Writer(store.database, at_most=1000) for store in stores]
        stop = threading.Event()
        told: dict[str, Accepted] = {}
        refusals: list[Temporary] = []

        def deliver(number: int) -> None:
            n = 0
            while not stop.is_set():
                n += 1
                name = f"{number}-{n}"
                while name not in told and not stop.is_set():  # as a sender does
                    try:
                        accepted = writers[number % 3].accept(arrival(object_event(name), transport=name))
                        told[name] = accepted
                    except Temporary as error:
                        refusals.append(error)
                        time.sleep(0.05)

        with ThreadPoolExecutor(6) as pool:
            senders = [pool.submit(deliver, number) for number in range(6)]
            for _ in range(3):
                before = len(told)
                wait(lambda before=before: len(told) > before + 50)
                own.stop(signal.SIGKILL)
                own.start()
            before = len(told)
            wait(lambda: len(told) > before + 50)
            stop.set()
            for sender in senders:
                sender.result(30)
        for writer in writers:
            writer.close()
        assert refusals
        with stores[0].database.read() as connection:
            kept = connection.execute(select(tables.delivery.c.id, tables.delivery.c.event_ids)).all()
            events = set(connection.scalars(select(tables.event.c.id)))
        deliveries = {row.id: row.event_ids for row in kept}
        assert {one.delivery_id: list(one.event_ids) for one in told.values()}.items() <= deliveries.items()
        assert {event_id for ids in deliveries.values() for event_id in ids} == events
        assert len(events) == len(deliveries)
        for store in stores:
            store.close()


def wait(look: Callable[[], Any], within: float = 30) -> None:
    deadline = time.monotonic() + within
    while not look():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@contextmanager
def cutting(server: postgres.Server, url: str) -> Iterator[tuple[Store, Cutting]]:
    wire = Cutting(server.port)
    store = Store(StoreSettings(url=url.replace(f":{server.port}/", f":{wire.port}/")))
    try:
        yield store, wire
    finally:
        store.close()
        wire.close()


@pytest.mark.parametrize("cut", ["before", "after"])
class TestACommitOfWhichNobodyHears:
    """Temporary; whoever does it again finds what is there, and nothing is there twice."""

    def lost(self, wire: Cutting, cut: str, do: Callable[[], Any]) -> Any:
        wire.cut, wire.spared = cut, 0
        with pytest.raises(Temporary):
            do()
        assert not wire.cut
        return do()

    def test_a_redelivery_is_recognised(self, postgres_server: postgres.Server, postgres_url: str, cut: str) -> None:
        with cutting(postgres_server, postgres_url) as (store, wire):
            again = self.lost(wire, cut, lambda: store.events.accept(arrival(object_event())))
            assert again.duplicate is (cut == "after")
            assert count(store, tables.event) == count(store, tables.delivery) == 1
            assert store.events.due(NOW, 10) == list(again.event_ids)

    def test_an_event_is_decided_once_and_its_run_submitted_once(
        self, postgres_server: postgres.Server, postgres_url: str, cut: str
    ) -> None:
        with cutting(postgres_server, postgres_url) as (store, wire):
            event_id = one_event(store)
            later = [NOW + timedelta(minutes=n) for n in range(20)]

            def settle(cut: str) -> None:
                at = later.pop(0)
                if (item := store.events.claim(event_id, claim(at, holder=str(at)))) is None:
                    return
                run = replace(a_run(event_id, "k"), created_at=at)
                judged = Judged(
                    rule="r", outcome="run", reason=Reason.MATCHED, detail="", rule_hash="", rule_set="", run=run
                )
                ask = Ask(rule="r", lock="", causes=(), judge=lambda _history: judged)
                wire.cut, wire.spared = cut, 0
                store.decisions.settle(item, [ask], holder=str(at), now=at)

            with pytest.raises(Temporary):
                settle(cut)
            settle("")
            assert count(store, tables.decision) == count(store, tables.run) == count(store, tables.run_transition) == 1

            def begin() -> None:
                at = later.pop(0)
                if (run := store.runs.get("k")) is not None:
                    store.queue.begin(run, claim(at, holder=str(at)))

            self.lost(wire, cut, begin)
            moves = [move.after for move in store.runs.transitions("k")]
            assert moves == [State.READY, State.SUBMITTING]
            sent = Transition(
                run_key="k", at=NOW, before=State.SUBMITTING, after=State.SUBMITTED, reason=Reason.ACCEPTED, detail=""
            )
            moved = self.lost(wire, cut, lambda: store.runs.move(sent, backend_id="b"))
            assert moved is (cut == "before")
            run = store.runs.get("k")
            assert run is not None
            assert (run.state, run.backend_id) == (State.SUBMITTED, "b")
            assert len(store.runs.transitions("k")) == 3
            assert store.account.verify(later[0], patience=timedelta(0), settle=timedelta(0))["twice"] == []

    def test_an_alias_is_moved_by_one(self, postgres_server: postgres.Server, postgres_url: str, cut: str) -> None:
        with cutting(postgres_server, postgres_url) as (store, wire):
            moving = promotion(2, "k")
            again = self.lost(wire, cut, lambda: store.promotions.add(moving, claim()))
            assert (again is None) is (cut == "after")
            assert [one.state for one in store.promotions.of_run("k")] == [PromotionState.MOVING]
            assert store.promotions.due(NOW + timedelta(minutes=1), 10) == [moving.id]
