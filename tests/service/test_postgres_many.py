"""Many processes on one PostgreSQL: what they do at the same moment comes out as if one had done it after the other."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import postgres
from command import ROOT
from rows import NOW, a_run, arrival, claim, count, decided, object_event, one_event, promotion, push
from sqlalchemy import update
from sqlalchemy.event import listen

from service.ledger import Ask, Judged, Rate
from service.lifecycle import State
from service.records import Accepted, Double, PromotionState, Query, Transition
from service.settings import StoreSettings
from service.store import Store, migrate, pacing, tables
from service.store.database import Database
from triggers.reason import Reason
from triggers.rules.gate import History

T = TypeVar("T")


def at_once(stores: list[Store], do: Callable[[int, Store], T]) -> list[T]:
    """Each process does it, all at the same time."""
    together = threading.Barrier(len(stores))

    def begin(number: int) -> T:
        together.wait(10)
        return do(number, stores[number])

    with ThreadPoolExecutor(len(stores)) as pool:
        return list(pool.map(begin, range(len(stores))))


def test_some_that_migrate_at_once_are_harmless(postgres_server: postgres.Server, home: Path) -> None:
    with postgres_server.database() as url:
        argv = [sys.executable, "-m", "service", "--home", str(home), "migrate"]
        environment = os.environ | {"KFP_TRIGGERS_STORE__URL": url}
        told = {"cwd": ROOT, "env": environment, "stdout": subprocess.PIPE, "text": True}
        begun = [subprocess.Popen(argv, **told) for _ in range(3)]  # type: ignore[call-overload]
        said = [one.communicate(timeout=60)[0] for one in begun]
        assert [one.returncode for one in begun] == [0, 0, 0], said
        database = Database(StoreSettings(url=url))
        migrate.require_current(database)
        database.close()


def test_of_many_that_settle_at_once_on_one_lock_one_makes_a_run(stores: list[Store]) -> None:
    items = []
    for number in range(len(stores)):
        item = stores[0].events.claim(one_event(stores[0], f"{number}.csv"), claim())
        assert item is not None
        items.append(item)

    def settle(number: int, store: Store) -> str:
        def judge(history: History) -> Judged:
            time.sleep(0.02)  # as long as it takes others to look, too
            run = None if history.busy else a_run(items[number].id, f"k{number}", lock="train")
            outcome = "skip" if run is None else "run"
            reason = Reason.MATCHED if run else Reason.BUSY
            return Judged(rule="r", outcome=outcome, reason=reason, detail="", rule_hash="", rule_set="", run=run)

        ask = Ask(rule="r", lock="train", causes=(), judge=judge)
        judged = store.decisions.settle(items[number], [ask], holder="me", now=NOW)
        assert judged is not None
        return judged[0].outcome

    assert sorted(at_once(stores, settle)) == ["run"] + ["skip"] * (len(stores) - 1)
    assert len(stores[0].runs.list(Query())) == 1


def test_of_many_that_hear_one_message_one_claims(stores: list[Store]) -> None:
    event_id = one_event(stores[0])
    won = at_once(stores, lambda number, store: store.events.claim(event_id, claim(holder=str(number))))
    assert sum(item is not None for item in won) == 1
    decided(stores[0], one_event(stores[0], "b.csv"), "k")
    run = stores[0].runs.get("k")
    assert run is not None
    rate = Rate(per_second=100, burst=100)
    begun = at_once(stores, lambda number, store: store.queue.begin(run, claim(holder=str(number)), rate))
    assert sum(item is not None for item in begun) == 1
    assert [move.after for move in stores[0].runs.transitions("k")] == [State.READY, State.SUBMITTING]


def test_one_who_lost_the_claim_meanwhile_settles_nothing(stores: list[Store]) -> None:
    """The claim is taken over while the first one is about to write: one of them is told so."""
    mine, other = stores[:2]
    item = mine.events.claim(one_event(mine), claim(seconds=1))
    assert item is not None
    later = claim(NOW + timedelta(seconds=2), holder="other")
    with other.database.write() as connection:
        taken = update(tables.event).where(tables.event.c.id == item.id).values(holder="other")
        connection.execute(taken)
        with ThreadPoolExecutor(1) as pool:
            settled = pool.submit(mine.decisions.settle, item, [], holder="me", now=later.now)
            time.sleep(0.2)
            assert not settled.done(), "it waits to hear whether it still holds the claim"
            connection.commit()
            assert settled.result(10) is None


def test_slots_are_granted_once_by_however_many(stores: list[Store]) -> None:
    for number in range(len(stores)):
        decided(stores[0], one_event(stores[0], f"{number}"), f"k{number}", lock="train", lock_max=2)
    granted = [key for keys in at_once(stores, lambda _number, store: store.queue.admit(NOW)) for key in keys]
    assert sorted(granted) == ["k0", "k1"]
    assert count(stores[0], tables.lock) == 2


def test_a_slot_that_a_revived_run_takes_is_granted_to_nobody_else(stores: list[Store]) -> None:
    for number in range(2):
        decided(stores[0], one_event(stores[0], f"{number}"), f"k{number}", lock="train")
    with stores[0].database.write() as connection:
        connection.execute(update(tables.run).where(tables.run.c.run_key == "k0").values(state=State.FAILED))

    def slowly(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("INSERT INTO lock"):
            time.sleep(0.3)

    listen(stores[0].database.engine, "before_cursor_execute", slowly)
    again = Transition(run_key="k0", at=NOW, before=State.FAILED, after=State.RUNNING, reason=Reason.REVIVED, detail="")
    with ThreadPoolExecutor(2) as pool:
        revived = pool.submit(stores[0].runs.revive, again)
        time.sleep(0.1)
        assert pool.submit(stores[1].queue.admit, NOW).result(10) == []
        assert revived.result(10)


def test_a_run_that_is_cancelled_while_it_is_admitted_keeps_no_slot(stores: list[Store]) -> None:
    decided(stores[0], one_event(stores[0]), "k", lock="train")
    with stores[1].database.write() as connection:
        connection.execute(update(tables.run).values(state=State.CANCELLED))
        with ThreadPoolExecutor(1) as pool:
            granted = pool.submit(stores[0].queue.admit, NOW)
            time.sleep(0.2)
            connection.commit()
            assert granted.result(10) == []
    assert count(stores[0], tables.lock) == 0


def test_the_first_tokens_of_a_backend_are_counted_once_each(stores: list[Store]) -> None:
    rate = Rate(per_second=1, burst=3)

    def take(_number: int, store: Store) -> bool:
        with store.database.write() as connection:
            return pacing.take(connection, "kfp", rate, NOW)

    assert sum(at_once(stores, take)) == 3


def test_what_comes_to_many_doors_at_once_is_stored_once(stores: list[Store]) -> None:
    def deliver(number: int, store: Store) -> list[Accepted]:
        arrivals = [arrival(object_event(f"{n}.csv"), transport=f"{n}") for n in range(20)]
        arrivals += [arrival(push("b"), transport=f"b{number}")]  # one move of a ref, told by six
        return [store.events.accept(one) for one in arrivals]

    accepted = at_once(stores, deliver)
    assert sum(not one.duplicate for told in accepted for one in told) == 21
    assert len({event_id for told in accepted for one in told for event_id in one.event_ids}) == 21
    assert count(stores[0], tables.event) == 21


def test_of_many_promotions_at_once_one_moves_the_alias(stores: list[Store]) -> None:
    added = at_once(stores, lambda number, store: store.promotions.add(promotion(2 + number), claim()))
    assert [one.state for one in added if one and one.state is PromotionState.MOVING] == [PromotionState.MOVING]
    assert len([one for one in added if one and one.state is PromotionState.LOST]) == len(stores) - 1
    again = at_once(stores, lambda _number, store: store.promotions.add(promotion(9, "k"), claim()))
    assert sum(one is not None for one in again) == 1, "a run has one verdict"


def test_a_double_is_found_once_by_however_many(stores: list[Store]) -> None:
    decided(stores[0], one_event(stores[0]), "k")
    found = Double(run_key="k", backend="b", backend_id="i", found_at=NOW)
    assert sum(at_once(stores, lambda _number, store: store.runs.double(found))) == 1
