"""Retention: bodies go first, then events with all that hangs on them; never what is needed, and it is known again."""

import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from letters import dead_run, misunderstood
from sqlalchemy import func, select
from world import RULES, World

from service import metrics
from service.errors import Refused
from service.flow.retain import REDELIVERS, keep_of, retain
from service.flow.sweep import sweep
from service.ledger import Arrival
from service.lifecycle import State
from service.records import Edge, Query
from service.settings import RetentionSettings, load
from service.store.tables import metadata
from triggers.event import Delivery, Event, Reading, key_of
from triggers.sources import SOURCES

Drop = Callable[..., str]
DAY = 86_400
OF_EVENT = ("event", "decision", "run", "run_transition", "lineage_edge")


def counts(world: World) -> dict[str, int]:
    with world.store.database.read() as connection:
        return {
            table.name: connection.scalar(select(func.count()).select_from(table)) or 0
            for table in metadata.sorted_tables
        }


def finished(world: World, drop: Drop, key: str, **changes: object) -> str:
    """An event whose run has ended and is recorded."""
    event_id = drop(key, request=key, sequencer=f"187A5B1C{len(world.backend.created):08X}", **changes)
    world.answer()
    world.backend.end()
    world.later(5)
    (run,) = world.store.runs.of_event(event_id)
    assert (run.state, bool(run.recorded_at)) == (State.SUCCEEDED, True)
    return event_id


def pruned(world: World, days: float = 91, times: int = 8) -> None:
    """So many days later, with a sweep a day: what was put off is looked at again."""
    world.clock.forward(days * DAY)
    for _ in range(times):
        sweep(world.app)
        world.clock.forward(1.1 * DAY)


def test_a_body_goes_before_its_event_and_leaves_size_and_hash(world: World, drop: Drop) -> None:
    import hashlib

    finished(world, drop, "incoming/a.csv")
    (before,) = world.store.events.deliveries(Query())
    with world.store.database.read() as connection:
        body = connection.exec_driver_sql("select body from delivery").scalar()
    world.clock.forward(13 * DAY)
    retain(world.app)
    (kept,) = world.store.events.deliveries(Query())
    assert kept.emptied_at is None
    world.clock.forward(1 * DAY)
    retain(world.app)
    (after,) = world.store.events.deliveries(Query())
    assert (after.size, after.emptied_at) == (before.size, world.clock.now())
    assert after.body_hash == hashlib.sha256(body or b"").hexdigest()
    with world.store.database.read() as connection:
        assert connection.exec_driver_sql("select body from delivery").scalar() in (b"", memoryview(b""))
    assert len(world.store.events.list(Query())) == 1
    assert metrics.pruned.labels(table="body")._value.get() >= 1


def test_the_body_of_what_a_person_has_to_look_at_stays_until_he_has(world: World) -> None:
    from service.flow import dead

    poison = misunderstood(world)
    world.clock.forward(15 * DAY)
    retain(world.app)
    assert world.store.dead.body(poison) is not None
    letter = world.store.dead.get(poison)
    assert letter is not None
    dead.discard(world.app, letter, "ada", "")
    retain(world.app)
    assert world.store.dead.body(poison) is None


def test_an_old_event_goes_with_all_that_hangs_on_it(world: World, drop: Drop) -> None:
    for name in "abc":
        finished(world, drop, f"incoming/{name}.csv")
    assert counts(world)["run"] == 3
    pruned(world)
    left = counts(world)
    # The rule's latest run stays: a cooldown and `rule.last_success` look at it.
    assert {left[name] for name in ("event", "decision", "run", "delivery")} == {1}
    assert left["tombstone"] == 4
    (run,) = world.store.runs.list(Query())
    assert {move.run_key for move in world.store.runs.transitions(run.run_key)} == {run.run_key}
    with world.store.database.read() as connection:
        edges = connection.exec_driver_sql("select run_key from lineage_edge").scalars().all()
    assert set(edges) <= {run.run_key, ""}


def test_nothing_that_is_unfinished_goes(world: World, drop: Drop) -> None:
    world.rules(RULES.replace("pipeline:", "caching: false\n      pipeline:"))
    drop("incoming/waits.csv", request="1", eTag="1")
    world.registry.away = True
    world.answer()
    world.registry.away = False
    drop("incoming/runs.csv", request="2", eTag="2")
    world.answer()
    drop("incoming/accepted.csv", request="3", eTag="3")
    world.clock.forward(400 * DAY)
    for _ in range(3):
        retain(world.app)
        world.clock.forward(2 * DAY)
    assert len(world.store.events.list(Query())) == 3
    assert counts(world)["delivery"] == 3
    assert world.store.events.deliveries(Query())[0].emptied_at is None  # not yet decided


def test_what_something_younger_was_made_from_stays_as_long_as_that(world: World, drop: Drop) -> None:
    trained = finished(world, drop, "incoming/train.csv")
    (run,) = world.store.runs.of_event(trained)
    wrote = Edge(source=f"run:{run.run_key}", relation="wrote", target="models:/m/1", run_key=run.run_key)
    world.store.lineage.add([wrote], world.clock.now())
    world.clock.forward(60 * DAY)
    scored = finished(world, drop, "incoming/score.csv")
    (user,) = world.store.runs.of_event(scored)
    read = Edge(source="models:/m/1", relation="read", target=f"run:{user.run_key}", run_key=user.run_key)
    world.store.lineage.add([read], world.clock.now())
    finished(world, drop, "incoming/last.csv")
    pruned(world, 31)
    assert world.store.events.get(trained) is not None  # 91 days old, and a run of 31 days ago read its model
    pruned(world, 62)
    assert (world.store.events.get(scored), world.store.events.get(trained)) == (None, None)
    assert world.store.lineage.out_of("models:/m/1") == []


def test_what_was_written_anew_since_leans_on_the_newer_one_alone(world: World, drop: Drop) -> None:
    events = []
    for day in range(3):
        events.append(finished(world, drop, f"incoming/{day}.csv"))
        (run,) = world.store.runs.of_event(events[-1])
        node = f"run:{run.run_key}"
        edge = (
            Edge(source=node, relation="wrote", target="s3://f/features", run_key=run.run_key)
            if day < 2
            else Edge(source="s3://f/features", relation="read", target=node, run_key=run.run_key)
        )
        world.store.lineage.add([edge], world.clock.now())
        world.clock.forward(DAY)
    pruned(world)
    assert [world.store.events.get(one) is None for one in events] == [True, False, False]


def test_a_late_redelivery_is_known_until_its_key_is_gone(world: World, drop: Drop) -> None:
    told = {"request": "incoming/a.csv", "sequencer": "187A5B1C00000000"}
    event_id = finished(world, drop, "incoming/a.csv")
    finished(world, drop, "incoming/b.csv")
    pruned(world)
    assert world.store.events.get(event_id) is None
    delivered = counts(world)["delivery"]
    assert drop("incoming/a.csv", **told) == event_id  # the same notification
    assert counts(world)["delivery"] == delivered
    assert drop("incoming/a.csv", **(told | {"request": "another"})) == event_id  # the same object by another one
    world.answer()
    assert len(world.store.runs.list(Query())) == 1
    world.clock.forward(200 * DAY)
    retain(world.app)
    assert counts(world)["tombstone"] == 0
    assert drop("incoming/a.csv", **told) != event_id


def test_each_telling_keeps_a_key_for_another_month(world: World, drop: Drop) -> None:
    event_id = finished(world, drop, "incoming/a.csv")
    finished(world, drop, "incoming/b.csv")
    pruned(world)
    told = {"request": "incoming/a.csv", "sequencer": "187A5B1C00000000"}
    for _ in range(10):
        world.clock.forward(29 * DAY)
        retain(world.app)
        assert drop("incoming/a.csv", **told) == event_id


def test_the_last_push_to_a_ref_stays_and_a_repeat_of_it_is_known(world: World) -> None:
    def told(sha: str, transport: str) -> str:
        now = world.clock.now()
        push = Event(type="git.push", subject="r@main", time=now, data={"sha": sha}, stream="r@main", position=sha)
        delivery = Delivery(source="model-repo", headers={}, body=b"{}", received_at=now)
        reading = Reading(transport_key=key_of(transport), events=(push,))
        return world.store.events.accept(Arrival(delivery=delivery, headers={}, reading=reading)).event_ids[0]

    first = [told(sha, f"{number}") for number, sha in enumerate("abab")]
    assert len(set(first)) == 4
    pruned(world)
    assert [one.id for one in world.store.events.list(Query())] == [first[-1]]
    assert told("b", "late") == first[-1]
    assert told("a", "2") == first[2]  # by its delivery
    assert len({told("a", "5"), told("b", "6"), told("a", "7")} | set(first)) == 7


def test_a_step_is_a_few_rows_and_the_rest_is_left_to_the_next(world: World, drop: Drop) -> None:
    for number in range(6):
        finished(world, drop, f"incoming/{number}.csv")
    import dataclasses

    world.app = dataclasses.replace(world.app, retention=RetentionSettings(batch=20))
    world.clock.forward(91 * DAY)
    before = counts(world)
    retain(world.app)
    after = counts(world)
    gone = sum(before[name] - after[name] for name in OF_EVENT)
    assert 0 < gone <= 20
    for _ in range(20):
        retain(world.app)
    assert counts(world)["event"] == 1


def test_a_quarantined_event_and_a_dead_run_go_with_their_age(world: World, drop: Drop) -> None:
    misunderstood(world)
    dead_run(world, drop)
    finished(world, drop, "incoming/last.csv")
    pruned(world)
    assert [one.state for one in world.store.runs.list(Query())] == [State.SUCCEEDED]
    assert counts(world)["event"] == 1


def test_every_sender_has_its_window_and_no_key_goes_within_it(world: World) -> None:
    import dataclasses

    assert set(REDELIVERS) == set(SOURCES)
    short = dataclasses.replace(
        world.app, retention=RetentionSettings(keys=timedelta(days=7), events=timedelta(days=7), bodies="1d")
    )
    keep = keep_of(short)
    types = {name: source.type for name, source in world.app.rules.now().sources.items()}
    assert {name: max(REDELIVERS[types[name]], timedelta(days=7)) for name in types} == keep.of_source
    assert keep.other == timedelta(days=30)


def test_users_are_told_the_same_windows() -> None:
    page = (Path(__file__).parents[2] / "docs/operations.md").read_text()
    told = re.findall(r"^\| `(\w+)` \| (\d+) d \|", page, re.MULTILINE)
    assert {name: timedelta(days=int(days)) for name, days in told} == REDELIVERS


def test_ages_are_written_as_people_write_them(home: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KFP_TRIGGERS_RETENTION__EVENTS", "30d")
    monkeypatch.setenv("KFP_TRIGGERS_RETENTION__BODIES", "1d12h")
    found = load().retention
    assert (found.events, found.bodies, found.keys) == (timedelta(30), timedelta(1.5), timedelta(180))
    assert found.model_dump(mode="json") == {"bodies": "1d", "events": "30d", "keys": "180d", "batch": 200}


@pytest.mark.parametrize(
    ("name", "value"), [("EVENTS", "1h"), ("EVENTS", "soon"), ("BODIES", "100d"), ("KEYS", "80d"), ("BATCH", "5000")]
)
def test_ages_that_make_no_sense_are_refused(
    home: object, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(f"KFP_TRIGGERS_RETENTION__{name}", value)
    with pytest.raises(Refused, match="retention"):
        load()


def test_verify_is_clean_after_it(world: World, drop: Drop) -> None:
    for name in "abc":
        finished(world, drop, f"incoming/{name}.csv")
    pruned(world)
    found = world.store.account.verify(world.clock.now(), patience=timedelta(minutes=1), settle=timedelta(minutes=1))
    assert [found[name] for name in ("lost", "stuck", "twice", "unrecorded")] == [[], [], [], []]
