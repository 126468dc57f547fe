"""Dead letters: what stops for good is seen, mended and tried again, or put away, and is in nobody's way."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from command import Shell
from letters import dead_run, misunderstood, send
from world import PACKAGE, World

from service.errors import Permanent
from service.flow import dead
from service.flow.sweep import sweep
from service.ledger import Claim
from service.lifecycle import State
from service.records import DeadQuery, EventState, Query
from triggers.event import Delivery
from triggers.reason import Reason

Drop = Callable[..., str]
PATIENCE = timedelta(minutes=1)


@pytest.fixture
def shell(world: World, monkeypatch: pytest.MonkeyPatch) -> Shell:
    world.clock.at = datetime.now(UTC) - timedelta(hours=1)
    (world.home / "packages").mkdir()
    (world.home / "packages" / "scoring@v1.yaml").write_text(PACKAGE)
    monkeypatch.setenv("KFP_TRIGGERS_HOME", str(world.home))
    monkeypatch.setenv("KFP_TRIGGERS_STORE__URL", world.store.database.url)
    return Shell()


def mended(monkeypatch: pytest.MonkeyPatch) -> None:
    """As after an upgrade whose parser knows the new version."""
    import dataclasses

    from triggers.sources import SOURCES

    old = SOURCES["minio"]

    def read(config: object, delivery: Delivery) -> object:
        return old.read(config, dataclasses.replace(delivery, body=delivery.body.replace(b'"Entries"', b'"Records"')))

    monkeypatch.setitem(SOURCES, "minio", dataclasses.replace(old, read=read))  # type: ignore[arg-type]


def verified(world: World) -> dict[str, object]:
    found = world.store.account.verify(world.clock.now(), patience=PATIENCE, settle=PATIENCE)
    assert not any(found[name] for name in ("lost", "stuck", "twice", "unrecorded")), found
    return found


def test_a_poison_event_and_a_dead_run_block_nobody(world: World, drop: Drop) -> None:
    poison = misunderstood(world)
    key = dead_run(world, drop)
    for number in range(3):
        drop(f"incoming/{number}.csv", request=str(number))
        drop(f"incoming/{number}.csv", request=f"again {number}", eTag="e2")
    world.answer()
    assert {run.state for run in world.store.runs.list(Query()) if run.run_key != key} == {State.SUBMITTED}
    assert [one.key for one in world.store.dead.list(DeadQuery())] == [poison, key]
    verified(world)


def test_what_is_understood_now_is_read_again_and_runs(
    world: World, drop: Drop, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison = misunderstood(world)
    before = world.store.events.get(poison)
    assert before is not None
    assert before.state is EventState.QUARANTINED
    world.clock.forward(3600)
    with pytest.raises(Permanent, match="not understood still"):
        dead.retry(world.app, world.store.dead.list(DeadQuery())[0], "ada", "")
    mended(monkeypatch)
    assert dead.retry(world.app, world.store.dead.list(DeadQuery())[0], "ada", "parser").startswith("was read again: 1")
    world.answer()
    (run,) = world.store.runs.list(Query())
    made = world.store.events.get(run.event_id)
    assert made is not None
    assert (made.delivery_id, made.received_at) == (before.delivery_id, before.received_at)
    assert world.store.dead.list(DeadQuery()) == []
    again = world.store.events.get(poison)
    assert again is not None
    assert (again.state, again.reason) == (EventState.IGNORED, Reason.READ_AGAIN)
    delivery = world.store.events.delivery(before.delivery_id)
    assert delivery is not None
    assert list(delivery.event_ids) == [poison, made.id]
    # The sender tells of it once more: it is known, and nothing runs twice.
    assert misunderstood(world) == drop() == poison
    assert drop(request="another") == made.id
    world.answer()
    assert len(world.store.runs.list(Query())) == 1
    assert verified(world)["events"]["ignored"] == 1  # type: ignore[index]


def test_a_delivery_that_came_again_and_was_understood_is_not_told_twice(
    world: World, drop: Drop, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison = misunderstood(world)
    mended(monkeypatch)
    told = drop()
    said = dead.retry(world.app, world.store.dead.list(DeadQuery())[0], "ada", "")
    assert said == "was read again: 0 new of 1 told"
    world.answer()
    assert [run.event_id for run in world.store.runs.list(Query())] == [told]
    assert world.store.dead.get(poison) is None


def test_a_push_that_is_read_late_moves_no_branch_back(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from triggers.errors import NotUnderstood
    from triggers.event import Event, Reading, key_of
    from triggers.sources import SOURCES

    def read(_config: object, delivery: Delivery) -> Reading:
        if delivery.body == b"a" and not understood:
            raise NotUnderstood("not yet")
        sha = delivery.body.decode()
        data = {"repository": "acme/model", "branch": "main", "sha": sha}
        push = Event(
            type="git.push", subject="acme/model@main", time=delivery.received_at, data=data, stream="s", position=sha
        )
        return Reading(transport_key=key_of(sha, delivery.received_at), events=(push,))

    import dataclasses

    understood: list[bool] = []
    monkeypatch.setitem(SOURCES, "minio", dataclasses.replace(SOURCES["minio"], read=read))
    send(world, b"a")
    world.clock.forward(1)
    b = send(world, b"b")
    understood.append(True)
    (letter,) = world.store.dead.list(DeadQuery())
    assert dead.retry(world.app, letter, "ada", "").startswith("was read again: 1 new")
    head = world.store.events.head("uploads", "acme/model", "main")
    assert head is not None
    assert head.id == b
    world.clock.forward(1)
    assert send(world, b"a") not in {b, letter.key}  # the branch goes back to a: a third event
    assert len(world.store.events.list(Query())) == 4


def test_a_dead_run_is_started_anew_and_is_dead_no_more(world: World, drop: Drop) -> None:
    key = dead_run(world, drop)
    (letter,) = world.store.dead.list(DeadQuery())
    assert (letter.reason, letter.detail) == (Reason.BACKEND_REFUSED, "no such service account")
    assert dead.retry(world.app, letter, "ada", "mended") == "will be started anew, as generation 1"
    assert world.store.dead.list(DeadQuery()) == []
    world.answer()
    states = {run.run_key: run.state for run in world.store.runs.list(Query())}
    assert sorted(states.values()) == [State.DEAD, State.SUBMITTED]
    assert states[key] is State.DEAD
    (note,) = world.store.dead.notes("run", key)
    assert (note.action, note.by, note.why) == ("retried", "ada", "mended")
    verified(world)


def test_what_dies_anew_is_dead_anew(world: World, drop: Drop) -> None:
    dead_run(world, drop)
    world.backend.before_create = Permanent("still none")
    dead.retry(world.app, world.store.dead.list(DeadQuery())[0], "ada", "")
    world.answer()
    (letter,) = world.store.dead.list(DeadQuery())
    assert letter.detail == "still none"


def test_what_is_discarded_ends_with_who_and_why(world: World, drop: Drop) -> None:
    poison, key = misunderstood(world), dead_run(world, drop)
    for letter in world.store.dead.list(DeadQuery()):
        dead.discard(world.app, letter, "ada", "a test of theirs")
        with pytest.raises(Permanent, match="dead no more"):
            dead.discard(world.app, letter, "bob", "")
    assert world.store.dead.list(DeadQuery()) == []
    item, run = world.store.events.get(poison), world.store.runs.get(key)
    assert item is not None
    assert run is not None
    assert (item.state, item.reason) == (EventState.DISCARDED, Reason.NOT_UNDERSTOOD)
    assert (run.state, run.error) == (State.DISCARDED, "no such service account")
    assert world.store.runs.transitions(key)[-1].detail == "by ada: a test of theirs"
    assert [one.action for one in world.store.dead.notes("event", poison)] == ["discarded"]
    found = verified(world)
    assert found["events"]["discarded"] == 1  # type: ignore[index]
    assert found["runs"] == {"discarded": 1}
    assert world.store.account.gauges()["run"] == {"discarded": 1}


@pytest.mark.parametrize("kind", ["event", "decision"])
def test_what_the_service_dies_of_is_given_up_with_a_reason(
    world: World, drop: Drop, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(dead, "TRIES", 3)
    key = drop()
    if kind == "decision":
        world.registry.away = True
        world.answer()
        world.registry.away = False
        (decision,) = world.store.decisions.of_event(key)
        key = decision.id
    ledger = world.store.events if kind == "event" else world.store.decisions
    for number in range(3):  # each claims it, and dies
        world.clock.forward(60)
        now = world.clock.now()
        assert ledger.claim(key, Claim(holder=str(number), now=now, until=now + timedelta(seconds=30)))
        dead.bury(world.app)
        assert world.store.dead.get(key) is None
    world.clock.forward(31)
    dead.bury(world.app)
    letter = world.store.dead.get(key)
    assert letter is not None
    assert (letter.kind, letter.reason, letter.detail) == (kind, Reason.POISON, "after 3 tries")
    verified(world)
    world.bell.rung.clear()
    assert dead.retry(world.app, letter, "ada", "upgraded") == "is decided again"
    world.answer()
    assert [run.state for run in world.store.runs.list(Query())] == [State.SUBMITTED]


def test_a_decision_that_waits_for_long_is_no_poison(world: World, drop: Drop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dead, "TRIES", 3)
    world.registry.away = True
    event_id = drop()
    world.answer()
    for _ in range(10):
        world.clock.forward(3600)
        sweep(world.app)
    (decision,) = world.store.decisions.of_event(event_id)
    assert decision.outcome == "wait"
    assert world.store.dead.list(DeadQuery()) == []


def test_a_list_is_filtered_and_a_filter_counts_first(shell: Shell, world: World, drop: Drop) -> None:
    poison = misunderstood(world)
    key = dead_run(world, drop)
    listed = shell.run("dead", "list").out
    for word in ("kind", "since", poison, key, "not_understood", "backend_refused", "no such service account"):
        assert word in listed
    for args, keys in (
        ([], [poison, key]),
        (["--rule", "score"], [key]),
        (["--source", "uploads"], [poison, key]),
        (["--source", "drift"], []),
        (["--reason", "not_understood"], [poison]),
        (["--older-than", "30m"], [poison, key]),
        (["--older-than", "2d"], []),
    ):
        assert [one["key"] for one in shell.json("dead", "list", *args)["items"]] == keys, args
    said = shell.run("dead", "discard", "--reason", "not_understood").out
    assert "1 would be discarded; say --yes to do it" in said
    assert shell.json("dead", "discard", "--all")["count"] == 2
    assert len(shell.json("dead", "list")["items"]) == 2
    shell.run("dead", "discard", "--reason", "not_understood", "--yes", "--by", "ada", "--why", "noise")
    assert [one["key"] for one in shell.json("dead", "list")["items"]] == [key]
    assert world.store.dead.notes("event", poison)[0].by == "ada"


def test_one_is_shown_with_its_body_and_what_was_done(shell: Shell, world: World, drop: Drop) -> None:
    poison = misunderstood(world)
    said = shell.run("dead", "retry", poison, "--why", "just a try", status=1).out
    assert "not understood still: " in said
    shown = shell.run("dead", "show", poison).out
    assert '"Entries": [{"eventVersion": "2.0"' in shown
    found = shell.json("dead", "show", poison)
    assert (found["reason"], found["delivery"]["source"]) == ("not_understood", "uploads")
    assert "Entries" in found["body"]


def test_one_of_several_that_is_poison_still_keeps_nobody_back(shell: Shell, world: World, drop: Drop) -> None:
    poison, key = misunderstood(world), dead_run(world, drop)
    found = shell.json("dead", "retry", poison, key, status=1)["items"]
    assert [(one["key"], one["done"]) for one in found] == [(poison, False), (key, True)]


@pytest.mark.parametrize("verb", ["retry", "discard"])
def test_keys_and_filters_do_not_go_together(shell: Shell, world: World, verb: str) -> None:
    assert "give keys, or filters" in shell.run("dead", verb, status=2).err
    assert "give keys, or filters" in shell.run("dead", verb, "KEY", "--all", status=2).err
    assert "see `kfp-triggers dead list`" in shell.run("dead", verb, "KEY", status=1).err
    assert "there is no state nonsense" in shell.run("dead", verb, "--reason", "nonsense", status=2).err
