"""What keeps a rule from running for ever, or twice at a time: cooldown, lock, tries, budget. On the real store."""

import json
import threading
from collections.abc import Callable
from datetime import timedelta

import pytest
from sqlalchemy import insert
from sqlalchemy.event import listen
from ulid import ULID
from world import TOKEN, World

from service.flow.receive import receive
from service.flow.retry import anew
from service.ledger import Arrival
from service.lifecycle import State
from service.records import DecisionRecord, Query, RunRecord
from service.store import tables
from service.store.database import micros
from triggers.event import Delivery, Reading, key_of, rfc3339
from triggers.reason import Reason

RULES = """
apiVersion: kfp-triggers/v1
rules:
  on-drift:
    trigger: {{source: drift, event: alert.firing, labels: {{alertname: Drift}}{trigger}}}
    run: {{pipeline: scoring@v1, params: {{uri: "${{event.labels.feature}}", as_of: "${{run.decided_at}}"}}}}
    limits: {{{limits}}}
  on-push:
    trigger: {{source: model-repo, event: git.push}}
    run: {{pipeline: scoring@v1, params: {{uri: "${{event.sha}}"}}}}
    limits: {{lock: train, when_busy: wait}}
"""
PACKAGE = """
components: {}
deploymentSpec: {}
pipelineInfo: {name: scoring}
root:
  dag: {tasks: {}}
  inputDefinitions: {parameters: {uri: {parameterType: STRING}, as_of: {parameterType: STRING, isOptional: true}}}
schemaVersion: 2.1.0
sdkVersion: kfp-2.17.0
"""
HOUR = 3600.0
Alert = Callable[..., str]


def guarded(world: World, limits: str, trigger: str = "") -> None:
    world.rules(RULES.format(limits=limits, trigger=trigger))


@pytest.fixture
def alert(world: World) -> Alert:
    """Alertmanager tells of an alert as it is now; the event's id."""
    began: dict[str, str] = {}

    def told(feature: str = "age", *, resolved: bool = False, again: bool = False) -> str:
        now = rfc3339(world.clock.now())
        if not resolved and not again:
            began[feature] = now
        one = {
            "status": "resolved" if resolved else "firing",
            "labels": {"alertname": "Drift", "feature": feature},
            "annotations": {},
            "startsAt": began[feature],
            "endsAt": now if resolved else "0001-01-01T00:00:00Z",
            "fingerprint": f"f-{feature}",
        }
        body = {"version": "4", "receiver": "r", "truncatedAlerts": 0, "groupKey": "{}", "alerts": [one]}
        headers = {"authorization": f"Bearer {TOKEN}"}
        raw = json.dumps(body).encode()
        event_id = receive(
            world.app, Delivery(source="drift", headers=headers, body=raw, received_at=world.clock.now())
        )
        world.answer()
        return event_id.event_ids[0]

    return told


def push(world: World, sha: str) -> None:
    """A push, as its source reads it."""
    from triggers.event import Event

    data = {"sha": sha, "repository": "acme/model", "clone_url": "", "branch": "main", "paths": []}
    item = Event(type="git.push", subject="acme/model@main", time=world.clock.now(), data=data, identity=sha)
    delivery = Delivery(source="model-repo", headers={}, body=b"{}", received_at=world.clock.now())
    arrival = Arrival(delivery=delivery, headers={}, reading=Reading(transport_key=sha, events=(item,)))
    for event_id in world.app.accept(arrival).event_ids:
        world.bell.ring("events.decide", event_id)


def runs(world: World) -> list[RunRecord]:
    """The oldest first."""
    return list(reversed(world.store.runs.list(Query())))


def decision(world: World, event_id: str) -> DecisionRecord:
    (found,) = world.store.decisions.of_event(event_id)
    return found


def pass_hours(world: World, hours: float, *, step: float = 0.5) -> None:
    """Time passes; every run that runs ends well within half an hour."""
    for _ in range(int(hours / step)):
        world.later(step * HOUR)
        world.answer()
        world.backend.end()
        world.later(1)
        world.answer()


def test_resolved_and_a_repeat_start_nothing(world: World, alert: Alert) -> None:
    guarded(world, "lock: train, when_busy: skip, cooldown: 6h")
    first = alert()
    world.clock.forward(300)
    assert alert(again=True) == first
    alert(resolved=True)
    pass_hours(world, 12)
    assert len(runs(world)) == 1


def test_a_second_alert_while_a_retrain_runs_starts_none_and_none_in_the_cooldown_after(
    world: World, alert: Alert
) -> None:
    guarded(world, "lock: train, when_busy: skip, cooldown: 6h")
    alert("age")
    second = alert("hours")
    assert (decision(world, second).outcome, decision(world, second).reason) == ("wait", Reason.COOLDOWN)
    pass_hours(world, 5)
    assert len(runs(world)) == 1
    pass_hours(world, 2)
    assert [run.params["uri"] for run in runs(world)] == ["age", "hours"]


def test_an_alert_that_still_fires_after_the_cooldown_is_asked_again_and_sees_the_world_of_then(
    world: World, alert: Alert
) -> None:
    guarded(world, "cooldown: 6h")
    alert("age")
    waits = alert("hours")
    fired = world.clock.now()
    pass_hours(world, 7)
    late = next(run for run in runs(world) if run.event_id == waits)
    assert late.as_of == rfc3339(late.created_at)
    assert late.created_at - fired >= timedelta(hours=6)


def test_a_replay_sees_the_instant_of_the_first_decision(world: World, alert: Alert) -> None:
    guarded(world, "cooldown: 6h")
    alert()
    world.backend.end(State.FAILED)
    world.later(1)
    (first,) = runs(world)
    world.clock.forward(HOUR)
    anew(world.app, first)
    world.answer()
    again = runs(world)[1]
    assert (again.generation, again.as_of) == (1, first.as_of)


@pytest.mark.parametrize("first", ["push", "alert"])
def test_a_push_and_an_alert_at_the_same_moment_never_train_at_once(world: World, alert: Alert, first: str) -> None:
    guarded(world, "lock: train, when_busy: skip")
    if first == "push":
        push(world, "a" * 40)
        world.answer()
    alert()
    if first == "alert":
        push(world, "a" * 40)
        world.answer()
    most = 0
    for _ in range(6):
        most = max(most, sum(one.state is State.RUNNING for one in world.backend.seen.values()))
        world.backend.end()
        world.later(40)
        world.answer()
    assert most == 1
    assert sorted(run.rule for run in runs(world)) == ["on-drift", "on-push"]


def test_many_processes_that_decide_at_once_give_one_slot(world: World, alert: Alert) -> None:
    from service.flow.decide import decide

    guarded(world, "lock: train, when_busy: skip, cooldown: 6h")
    world.bell.rung.clear()
    answered, world.answer = world.answer, lambda: None  # type: ignore[method-assign]
    events = [alert(f"f{number}") for number in range(6)]
    push(world, "b" * 40)
    world.bell.rung.clear()
    apps = [world.another_process(f"p{number}") for number in range(6)]
    threads = [threading.Thread(target=decide, args=(app, one)) for app, one in zip(apps, events, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(runs(world)) == 1
    world.answer = answered  # type: ignore[method-assign]
    world.answer()
    assert len(world.backend.created) == 1


def test_an_alert_that_fires_on_is_put_to_its_rule_again_though_alertmanager_never_repeats_it(
    world: World, alert: Alert
) -> None:
    guarded(world, "cooldown: 1h, tries: 5", trigger=", repeat: {every: 6h}")
    alert()
    pass_hours(world, 13)
    assert [round((run.created_at - runs(world)[0].created_at) / timedelta(hours=1)) for run in runs(world)] == [
        0,
        6,
        12,
    ]
    alert(resolved=True)
    pass_hours(world, 13)
    assert len(runs(world)) == 3


def test_alertmanager_may_repeat_as_often_as_it_likes(world: World, alert: Alert) -> None:
    guarded(world, "tries: 5", trigger=", repeat: {every: 6h}")
    alert()
    for _ in range(10):
        world.clock.forward(600)
        alert(again=True)
    assert len(runs(world)) == 1


def test_an_alert_that_fires_anew_ends_an_episode_whose_resolved_was_lost(world: World, alert: Alert) -> None:
    guarded(world, "cooldown: 6h")
    alert("age")
    lost = alert("hours")
    world.clock.forward(HOUR)
    alert("hours")
    pass_hours(world, 12)
    assert decision(world, lost).reason == Reason.RESOLVED
    assert len(runs(world)) == 2


def test_a_repeat_that_was_killed_half_way_is_told_once(world: World, alert: Alert) -> None:
    guarded(world, "tries: 5", trigger=", repeat: {every: 6h}")
    event_id = alert()
    made = decision(world, event_id)
    world.clock.forward(6 * HOUR + 1)
    taken = world.app.claim()
    assert world.store.decisions.claim(made.id, taken)
    from service.flow import repeat

    item = world.store.events.get(event_id)
    assert item is not None
    for _ in range(2):  # the second one stands for the process that takes over when the first one was killed
        accepted = world.app.accept(repeat._again(world.app, item, made))
    assert accepted.duplicate
    assert world.store.decisions.get(made.id).due_at is not None  # type: ignore[union-attr]


def test_after_its_tries_a_rule_gives_up_and_says_what_to_do(world: World, alert: Alert) -> None:
    guarded(world, "lock: train, when_busy: skip, cooldown: 1h, tries: 2", trigger=", repeat: {every: 2h}")
    alert()
    pass_hours(world, 24)
    assert len(runs(world)) == 2
    last = world.store.decisions.list(Query(rule="on-drift"))[0]
    assert (last.outcome, last.reason, last.due_at) == ("skip", Reason.TRIES_EXHAUSTED, None)
    assert "2 runs since 2026-11-21T07:00:00" in last.detail
    assert "kfp-triggers fire" in last.detail
    assert list(world.store.decisions.given_up()) == ["on-drift"]
    alert(resolved=True)
    assert world.store.decisions.given_up() == {}


def test_an_alert_that_flaps_gets_no_new_tries(world: World, alert: Alert) -> None:
    guarded(world, "cooldown: 2h, tries: 2")
    for _ in range(12):
        alert()
        pass_hours(world, 1)
        alert(resolved=True)
        pass_hours(world, 0.5)
    assert len(runs(world)) == 2


def test_another_alert_of_the_same_trouble_gets_no_tries_of_its_own(world: World, alert: Alert) -> None:
    guarded(world, "lock: train, when_busy: skip, cooldown: 1h, tries: 2")
    fired: list[str] = []
    for feature in ("age", "hours", "education", "age-of-version-4"):
        for one in fired:
            alert(one, again=True)
        fired.append(feature)
        alert(feature)
        pass_hours(world, 3)
    assert len(runs(world)) == 2


def test_tries_count_anew_after_a_quiet_time(world: World, alert: Alert) -> None:
    guarded(world, "cooldown: 1h, tries: 1")
    for _ in range(3):
        alert()
        pass_hours(world, 1)
        alert(resolved=True)
        pass_hours(world, 3)
    assert len(runs(world)) == 3


@pytest.mark.parametrize("late", ["education", "age"])
def test_an_alert_of_old_whose_resolved_was_lost_uses_up_no_tries(world: World, alert: Alert, late: str) -> None:
    guarded(world, "cooldown: 1h, tries: 2")
    alert("age")
    world.clock.forward(60 * 24 * HOUR)
    alert("hours")
    pass_hours(world, 1)
    alert("hours", resolved=True)
    world.clock.forward(180 * 24 * HOUR)

    assert decision(world, alert(late)).outcome == "run"


def test_a_noisy_rule_hides_no_other_that_gave_up_and_costs_one_look(world: World, alert: Alert) -> None:
    guarded(world, "cooldown: 1h, tries: 1")
    alert("age")
    world.clock.forward(2 * HOUR)
    quiet = decision(world, alert("hours"))
    assert quiet.reason == Reason.TRIES_EXHAUSTED
    at = micros(world.clock.now())
    row: dict[str, object] = {"event_id": quiet.event_id, "rule": "noisy", "reason": quiet.reason, "lookups": {}}
    row |= {"created_at": at, "decided_at": at}
    asked: list[str] = []
    with world.store.database.write() as connection:
        connection.execute(insert(tables.decision), [row | {"id": str(ULID()), "generation": n} for n in range(250)])
    listen(world.store.database.engine, "before_cursor_execute", lambda *told: asked.append(told[2]))

    assert set(world.store.decisions.given_up()) == {"on-drift", "noisy"}
    assert len([text for text in asked if "event" in text]) == 3


def test_what_a_person_asks_for_runs_although_the_rule_gave_up(world: World, alert: Alert) -> None:
    from dataclasses import replace

    guarded(world, "cooldown: 1h, tries: 1")
    event_id = alert()
    pass_hours(world, 2)
    alert(again=True)
    given_up = alert("hours")
    assert decision(world, given_up).reason == Reason.TRIES_EXHAUSTED
    item = world.store.events.get(event_id)
    assert item is not None
    key = key_of("fire", 1)
    reading = Reading(transport_key=key, events=(replace(item.event, identity=key),))
    delivery = Delivery(source="drift", headers={}, body=b"{}", received_at=world.clock.now())
    fired = world.app.accept(Arrival(delivery=delivery, headers={}, reading=reading, only_rule="on-drift"))
    world.bell.ring("events.decide", fired.event_ids[0])
    world.answer()
    assert decision(world, fired.event_ids[0]).outcome == "run"


def test_a_budget_lets_so_many_runs_be_made_in_a_day(world: World, alert: Alert) -> None:
    guarded(world, "budget: {runs: 2, per: day}")
    waiting = [alert(f"f{number}") for number in range(3)][-1]
    assert (decision(world, waiting).outcome, decision(world, waiting).reason) == ("wait", Reason.BUDGET)
    pass_hours(world, 23)
    assert len(runs(world)) == 2
    pass_hours(world, 2)
    assert len(runs(world)) == 3


def test_the_last_try_gets_its_time_to_help(world: World, alert: Alert) -> None:
    guarded(world, "lock: train, when_busy: wait, tries: 1")
    alert("age")
    second = alert("hours")
    assert (decision(world, second).outcome, decision(world, second).reason) == ("wait", Reason.BUSY)
    alert("hours", resolved=True)
    pass_hours(world, 1)
    assert decision(world, second).reason == Reason.RESOLVED


def test_whoever_looks_is_told_that_a_rule_gave_up(world: World, alert: Alert, monkeypatch: pytest.MonkeyPatch) -> None:
    from command import Shell
    from served import Spoken

    def metric() -> str:
        text = Spoken(world.app).get("/metrics").text
        return next(
            line for line in text.splitlines() if line.startswith('kfp_triggers_rule_given_up{rule="on-drift"}')
        )

    guarded(world, "cooldown: 1h, tries: 1")
    alert()
    assert metric().endswith(" 0.0")
    world.clock.forward(2 * HOUR)
    alert("hours")
    assert metric().endswith(" 1.0")
    monkeypatch.setenv("KFP_TRIGGERS_HOME", str(world.home))
    monkeypatch.setenv("KFP_TRIGGERS_STORE__URL", world.store.database.url)
    (world.home / "packages").mkdir()
    (world.home / "packages" / "scoring@v1.yaml").write_text(PACKAGE)
    shown = Shell().run("rules", "show", "on-drift", "--json").document
    assert (shown["last_reason"], shown["given_up_since"]) == ("tries_exhausted", "2026-11-21T09:00:00.000000Z")
    assert "2026-11-21 09:00" in Shell().run("rules", "show").out
    assert "there is on-drift, on-push" in Shell().run("rules", "show", "nosuch", status=1).err
    alert(resolved=True)
    alert("hours", resolved=True)
    assert metric().endswith(" 0.0")
