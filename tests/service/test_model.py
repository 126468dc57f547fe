"""The flow against a model of a few lines: whatever happens in whatever order, each event makes the runs it should.

Hypothesis drives two processes over one real store: deliveries told again, reordered, by another transport; kill -9 at
any failpoint and around the backend's POST; leases that run out; whoever takes the same work meanwhile; rules that
change, replays, dead letters, months that pass. Then all is healed and drained, and what the backend was asked for is
held against `owed`. `--hypothesis-profile=long` plays for as long as it takes.
"""

import hmac
import itertools
import json
import sys
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import structlog
from fakes import FakeBackend, Killed
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from world import TOKEN, World, notification

from service import failpoints
from service.errors import Permanent, Temporary
from service.flow import dead
from service.flow.receive import receive, store
from service.flow.retry import anew
from service.flow.steps import step
from service.flow.sweep import sweep
from service.flow.watch import watch
from service.ledger import Arrival
from service.lifecycle import TERMINAL, State
from service.ports import App, Job
from service.records import DeadQuery, EventState, Kind, Query
from service.rulebook import RuleBook
from service.store.tables import metadata
from triggers.event import Delivery, Reading, key_of
from triggers.rules.decision import run_key
from triggers.sources.minio import object_event

SCORE = """
  score:
    trigger: {source: uploads, event: object.created, key: "incoming/**"}
    lookup: {model: {mlflow_model: income-classifier, alias: champion}}
    run: {pipeline: scoring@v1, params: {uri: "${event.object}", model_version: "${lookup.model.version}"}}
"""
RULES = """
  alone:
    trigger: {source: uploads, event: object.created, key: "incoming/**"}
    run: {pipeline: scoring@v1, params: {uri: "${event.object}"}}
    limits: {lock: alone, max: 1, when_busy: wait}
  train:
    trigger: {source: model-repo, event: git.push, branch: main}
    run: {pipeline: scoring@v1, params: {uri: "${event.sha}"}}
  retrain:
    trigger: {source: drift, event: alert.firing}
    run: {pipeline: scoring@v1, params: {uri: "${event.alertname}"}}
    limits: {cooldown: 45s}
"""
SETS = {
    "as it was": SCORE + RULES,
    "changed": SCORE.replace("${event.object}", "${event.key}") + RULES,
    "paused": SCORE.replace("trigger", "mode: paused\n    trigger") + RULES,
    "without": RULES,
}
WANTED = {"object": ("score", "alone"), "push": ("train",), "firing": ("retrain",)}
POINTS = sorted(one for one in failpoints.POINTS if one.split(".")[0] in {"event", "decision", "lock", "run"})
CHANGED = datetime(2026, 11, 21, 7, 0, tzinfo=UTC)  #: of every object: versions differ by their content
SLEEPS = st.sampled_from([None, None, 0.0, 31.0, 100.0])

TROUBLES = {
    "not heard": ("before_create", Temporary("refused", nothing_happened=True)),
    "unclear, not made": ("before_create", Temporary("time-out")),
    "unclear, made": ("after_create", Temporary("time-out")),
    "killed before": ("before_create", Killed()),
    "killed after": ("after_create", Killed()),
}

Thing = tuple[Any, ...]  #: an identity, as the model sees it: the kind first
Turn = tuple[str, Thing, int]  #: a rule, what it is about, generation


@dataclass(frozen=True)
class Sent:
    """A request, and all that it tells of."""

    source: str
    headers: dict[str, str]
    body: bytes
    things: tuple[Thing, ...]


def objects(things: list[Thing], request: str) -> Sent:
    """As MinIO posts them, in one body. What is not understood is known by the body and its place in it."""
    body = json.dumps({"Records": [_record(*thing, request) for thing in things]}).encode()
    known = {"object": lambda thing, _: thing, "tagged": lambda thing, _: (*thing[:2], request)}
    poison = lambda _, place: ("poison", body, place)  # noqa: E731
    told = tuple(known.get(thing[0], poison)(thing, place) for place, thing in enumerate(things))
    return Sent("uploads", {"authorization": f"Bearer {TOKEN}"}, body, told)


def _record(kind: str, key: str, version: int, request: str) -> Any:
    request = f"poison {request}" if kind == "poison" else request  # two requests never have the same id
    record = json.loads(notification(f"incoming/{key}", eTag=f"e{version}", request=request))["Records"][0]
    if kind == "tagged":
        record["eventName"] += "Tagging"
    elif kind == "poison":
        record["s3"]["object"]["size"] = -1
    return record


def push(sha: str, place: int) -> Sent:
    """As GitHub posts it; a repeat has the same delivery id, so the model knows a move by its place."""
    told = {"ref": "refs/heads/main", "before": "0" * 40, "after": sha * 40, "repository": {"full_name": "acme/model"}}
    body = json.dumps(told | {"commits": [], "head_commit": None}).encode()
    signature = hmac.new(TOKEN.encode(), body, "sha256").hexdigest()
    headers = {"x-github-event": "push", "x-github-delivery": f"d{place}"}
    return Sent("model-repo", headers | {"x-hub-signature-256": f"sha256={signature}"}, body, (("push", sha, place),))


def alert(status: str, began: int) -> Sent:
    """As Alertmanager posts it."""
    ends = {"endsAt": "2026-11-21T06:59:00Z"} if status == "resolved" else {}
    one = {"status": status, "labels": {"alertname": "Drift"}, "fingerprint": "f", **ends}
    body = {"version": "4", "receiver": "us", "alerts": [one | {"startsAt": f"2026-11-21T06:0{began}:00Z"}]}
    headers = {"authorization": f"Bearer {TOKEN}"}
    return Sent("drift", headers, json.dumps(body).encode(), ((status, "f", began),))


class Model(RuleBasedStateMachine):
    """What happens, and the few things that are to hold whatever it is."""

    world: World  #: one for all examples: a new engine would compile every statement anew

    def __init__(self) -> None:
        super().__init__()
        self.parts = ExitStack()
        self.said: list[Any] = self.parts.enter_context(structlog.testing.capture_logs())  # type: ignore[assignment]
        _empty(self.world)
        self.starts = itertools.count()
        self.apps = [self._process(), self._process()]
        self.owed: dict[Turn, set[int]] = {}  #: how often its run is to be made; more than one where both are right
        self.ids: dict[Thing, str] = {}  #: of every event that was stored; "" while its sender has heard nothing
        self.sent: list[Sent] = []
        self.head = ""  #: where the ref is
        self.set = "as it was"
        self.refused = 0
        self.aged = False
        self.shown_at: datetime | None = None
        self.sleeps: float | None = None
        self.world.rules(_file(self.set))
        self.world.backend.create = self._create  # type: ignore[method-assign]
        self.world.registry.by_alias = self._by_alias  # type: ignore[method-assign]
        self.patch = self.parts.enter_context(pytest.MonkeyPatch.context())
        self.patch.setattr(failpoints, "_act", self._die)
        self.patch.setattr(threading, "excepthook", self._died_in_a_thread)
        self.acting = 0

    # The world's doing.

    def _process(self) -> App:
        app = self.world.app
        rules = RuleBook(self.world.home, app.backends, self.world.clock, every=0, kept=self.world.store.leases)
        return replace(app, rules=rules, holder=f"process-{next(self.starts)}")

    def _die(self, _name: str, _action: str) -> None:
        failpoints._armed = None
        self.apps[self.acting] = self._process()  # where it died another is started, with nothing in its memory
        raise Killed

    def _died_in_a_thread(self, told: Any) -> None:
        if not isinstance(told.exc_value, Killed):
            sys.__excepthook__(told.exc_type, told.exc_value, told.exc_traceback)

    def _as(self, who: int, do: Callable[[App], Any]) -> Any:
        """What the process does, killed or not; None when it was."""
        before, self.acting = self.acting, who
        try:
            return do(self.apps[who])
        except Killed:
            return None
        finally:
            self.acting = before

    def _pass(self, seconds: float) -> None:
        now = self.world.clock.now() + timedelta(seconds=seconds)
        if self.shown_at is not None and now >= self.shown_at:
            self.world.backend.stale, self.shown_at = False, None
        self.world.clock.forward(seconds)

    def _meanwhile(self, at_most: float) -> None:
        """This process sleeps at a call of a foreign system; the other one finds the same work."""
        if (seconds := self.sleeps) is not None:
            self.sleeps = None
            self._pass(min(seconds, at_most))
            self._as(1 - self.acting, self._duties)

    def _duties(self, app: App) -> None:
        sweep(app)
        watch(app)
        rung, self.world.bell.rung = self.world.bell.rung, []
        for one in rung:
            step(app, *one)

    def _create(self, job: Job) -> str:
        """Whoever sleeps in the very call for longer than the settle time may make a second run: not promised."""
        self._meanwhile(40.0)
        if self.world.backend.away:
            raise Temporary("refused", delay=2, nothing_happened=True)
        return FakeBackend.create(self.world.backend, job)

    def _by_alias(self, name: str, alias: str) -> Any:
        self._meanwhile(100.0)
        return type(self.world.registry).by_alias(self.world.registry, name, alias)

    # The model.

    def _heard(self, one: Sent, event_ids: list[str], *, duplicate: bool) -> None:
        known = [thing in self.ids for thing in one.things]
        assert duplicate == all(known)
        assert len(set(zip(one.things, event_ids, strict=True))) == len(set(one.things))
        for thing, event_id in zip(one.things, event_ids, strict=True):
            assert self.ids.get(thing) in {None, "", event_id}
        self._stored(one, dict(zip(one.things, event_ids, strict=True)))

    def _stored(self, one: Sent, ids: dict[Thing, str]) -> None:
        for thing in one.things:
            if thing not in self.ids:
                for name in WANTED.get(thing[0], ()):
                    self.owed[name, thing, 0] = {1} if name in _names(self.set) else {0}
                self._over(thing)
            self.ids[thing] = ids.get(thing) or self.ids.get(thing, "")

    def _over(self, told: Thing) -> None:
        """A firing alert is over when it was resolved, or has begun anew: what waits for it then is skipped."""
        for name, thing, generation in list(self.owed):
            if thing[0] == "firing" and (told[0] == "resolved" or told[0] == "firing") and generation == 0:
                over = told[2] == thing[2] if told[0] == "resolved" else told[2] > thing[2]
                if over and self._is_open(name, thing, 0):
                    self.owed[name, thing, generation].add(0)
        for other in self.ids:
            if told[0] == "firing" and (
                (other[0] == "resolved" and other[2] == told[2]) or (other[0] == "firing" and other[2] > told[2])
            ):
                self.owed["retrain", told, 0] = {0, int(self.aged)}  # what is past is let go of

    def _is_open(self, name: str, thing: Thing, generation: int) -> bool:
        """Whether it may still be decided by other rules than those that were in force when it came."""
        event_id = self.ids.get(thing)
        if not event_id:
            return True
        found = self.world.store.events.get(event_id)
        decided = self.world.store.decisions.of_event(event_id)
        waits = any((one.rule, one.generation, one.outcome) == (name, generation, "wait") for one in decided)
        return waits or (found is not None and found.state is EventState.ACCEPTED)

    # What happens.

    @initialize(who=st.integers(0, 1))
    def begins(self, who: int) -> None:
        assert not self._as(who, lambda app: app.rules.now()).problems

    def _deliver(self, who: int, one: Sent) -> None:
        self.sent.append(one)
        delivery = Delivery(
            source=one.source,
            headers=one.headers | {"content-type": "application/json"},
            body=one.body,
            received_at=self.world.clock.now(),
        )
        accepted = self._as(who, lambda app: receive(app, delivery))
        if accepted is None:  # killed between the commit and the answer
            self._stored(one, {})
        else:
            self._heard(one, list(accepted.event_ids), duplicate=accepted.duplicate)

    @rule(
        who=st.integers(0, 1),
        things=st.lists(
            st.tuples(
                st.sampled_from(["object", "object", "tagged", "poison"]),
                st.sampled_from("aab"),
                st.sampled_from([1, 1, 2]),
            ),
            min_size=1,
            max_size=2,
        ),
        request=st.sampled_from(["R1", "R1", "R2"]),
    )
    def an_object_is_told_of(self, who: int, things: list[Thing], request: str) -> None:
        self._deliver(who, objects(things, request))

    @rule(who=st.integers(0, 1), key=st.sampled_from("ab"), version=st.integers(1, 2))
    def an_object_is_found(self, who: int, key: str, version: int) -> None:
        """By a listing: no notification at all."""
        event = object_event(
            bucket="user-ids",
            key=f"incoming/{key}",
            etag=f"e{version}",
            version_id="",
            size=12,
            last_modified=CHANGED,
            content_type="text/csv",
            metadata={},
        )
        delivery = Delivery(source="uploads", headers={}, body=b"", received_at=self.world.clock.now())
        reading = Reading(transport_key=key_of("found", key, version), events=(event,))
        arrival = Arrival(delivery=delivery, headers={}, reading=reading)
        one = Sent("uploads", {}, b"", (("object", key, version),))
        if (accepted := self._as(who, lambda app: store(app, arrival))) is None:
            self._stored(one, {})
        else:
            self._heard(one, list(accepted.event_ids), duplicate=accepted.duplicate)

    @rule(who=st.integers(0, 1), sha=st.sampled_from("abc"))
    def a_ref_moves(self, who: int, sha: str) -> None:
        if sha != self.head:
            self.head = sha
            self._deliver(who, push(sha, len(self.sent)))

    @rule(who=st.integers(0, 1), status=st.sampled_from(["firing", "resolved"]), began=st.integers(1, 2))
    def an_alert_is_told_of(self, who: int, status: str, began: int) -> None:
        self._deliver(who, alert(status, began))

    @precondition(lambda self: self.sent)
    @rule(who=st.integers(0, 1), data=st.data())
    def something_is_told_again(self, who: int, data: st.DataObject) -> None:
        self._deliver(who, self.sent[data.draw(st.integers(0, len(self.sent) - 1))])

    @precondition(lambda self: self.world.bell.rung)
    @rule(
        who=st.integers(0, 1),
        places=st.lists(st.integers(0, 9), min_size=1, max_size=4),
        sleeps=SLEEPS,
        trouble=st.sampled_from([None, *TROUBLES]),
    )
    def workers_hear_rings(self, who: int, places: list[int], sleeps: float | None, trouble: str | None) -> None:
        """In any order, in turns; the same one twice where two places are the same."""
        rung, self.sleeps = list(self.world.bell.rung), sleeps
        if trouble is not None:
            setattr(self.world.backend, *TROUBLES[trouble])
        for turn, place in enumerate(places):
            if (one := rung[place % len(rung)]) in self.world.bell.rung:
                self.world.bell.rung.remove(one)
            self._as((who + turn) % 2, lambda app, one=one: step(app, *one))
        self.sleeps = None

    @rule(who=st.integers(0, 1), seconds=st.sampled_from([1.0, 11.0, 31.0, 61.0]), sleeps=SLEEPS)
    def time_passes(self, who: int, seconds: float, sleeps: float | None) -> None:
        self._pass(seconds)
        self.sleeps = sleeps
        self._as(who, sweep)
        self._as(who, watch)
        self.sleeps = None

    @rule(point=st.sampled_from(POINTS), passes=st.integers(1, 2))
    def a_process_is_to_be_killed(self, point: str, passes: int) -> None:
        failpoints._armed = (point, "kill", passes, itertools.count(1))

    @rule(what=st.sampled_from([*TROUBLES, "refused", "stale", "broker", "backend", "registry", "objects"]))
    def something_goes_wrong(self, what: str) -> None:
        """Or well again, with what is away."""
        backend = self.world.backend
        if what in TROUBLES:
            setattr(backend, *TROUBLES[what])
        elif what == "refused":
            backend.before_create = Permanent("no such service account")
            self.refused += 1
        elif what == "broker":
            self.world.bell.rung.clear()
        elif what == "stale":
            backend.stale, self.shown_at = True, self.shown_at or self.world.clock.now() + timedelta(seconds=15)
        else:
            part = getattr(self.world, what)
            part.away = not part.away

    @rule(state=st.sampled_from([State.SUCCEEDED, State.FAILED]))
    def runs_end(self, state: State) -> None:
        self.world.backend.end(state)

    @rule(name=st.sampled_from(sorted(SETS)))
    def the_rules_change(self, name: str) -> None:
        for (rule_name, thing, generation), owed in self.owed.items():
            if rule_name == "score" and self._is_open(rule_name, thing, generation):
                owed.add(int(rule_name in _names(name)))
        self.set = name
        self.world.rules(_file(name))

    @rule(who=st.integers(0, 1), data=st.data(), what=st.sampled_from(["cancel", "anew", "retry", "discard"]))
    def a_person_asks(self, who: int, data: st.DataObject, what: str) -> None:
        if what == "cancel":
            self._cancelled(data)
        elif what == "anew":
            self._made_anew(who, data)
        else:
            self._handled(who, data, put_away=what == "discard")

    def _cancelled(self, data: st.DataObject) -> None:
        if found := self.world.store.runs.list(Query(limit=500)):
            item = found[data.draw(st.integers(0, len(found) - 1))]
            self._owed_of(item.rule, item.event_id, item.generation).add(0)
            self.world.store.runs.ask_to_cancel(item.run_key, self.world.clock.now())

    def _owed_of(self, name: str, event_id: str, generation: int) -> set[int]:
        thing = next((one for one, known in self.ids.items() if known == event_id), None)
        return self.owed.setdefault((name, thing, generation), set()) if thing else set()

    def _again(self, name: str, event_id: str, generation: int) -> None:
        """A next generation: its run, once, if its rule is there."""
        self._owed_of(name, event_id, generation).add(int(name in _names(self.set)))

    def _made_anew(self, who: int, data: st.DataObject) -> None:
        if ended := [one for one in self.world.store.runs.list(Query(limit=500)) if one.state in TERMINAL]:
            item = ended[data.draw(st.integers(0, len(ended) - 1))]
            later = self.world.store.runs.get(run_key(item.rule, item.event_id, item.generation + 1))
            try:
                self._as(who, lambda app: anew(app, item))
            except Permanent:
                assert later is not None
            else:
                assert later is None
                self._again(item.rule, item.event_id, item.generation + 1)

    def _handled(self, who: int, data: st.DataObject, *, put_away: bool) -> None:
        if letters := self.world.store.dead.list(DeadQuery()):
            found = letters[data.draw(st.integers(0, len(letters) - 1))]
            if put_away:
                self._as(who, lambda app: dead.discard(app, found, "me", "why"))
            elif found.kind is Kind.RUN:
                self._as(who, lambda app: dead.retry(app, found, "me", "why"))
                item = self.world.store.runs.get(found.key)
                assert item is not None
                self._again(item.rule, item.event_id, item.generation + 1)
            else:
                with pytest.raises(Permanent):
                    dead.retry(self.apps[who], found, "me", "why")

    @precondition(lambda self: not self.aged)
    @rule()
    def months_pass(self) -> None:
        """Once, for after half a year a sender may be told that what he repeats is new."""
        self.aged = True
        self._pass(100 * 86400.0)
        for _ in range(3):
            self._as(0, sweep)

    # What holds.

    @invariant()
    def no_run_is_made_twice(self) -> None:
        made_of = Counter(key for key, _ in self.world.backend.created)
        assert not {key: count for key, count in made_of.items() if count > 1}

    @invariant()
    def nothing_fails_by_itself(self) -> None:
        assert not [one for one in self.said if one.get("exc_info")]

    @invariant()
    def who_is_alone_is_alone(self) -> None:
        backend = self.world.backend
        running = [key for key, one in backend.created if backend.seen[one].state is State.RUNNING]
        assert sum(backend.names[key].startswith("alone ") for key in running) <= 1

    @rule()
    def all_is_healed_and_drained(self) -> None:
        """And the account is what the model says."""
        self._heal()
        for one in [one for one in self.sent if any(not self.ids[thing] for thing in one.things)]:
            self._deliver(0, one)
        for _ in range(40):
            self.world.backend.end()  # before anybody has looked at what was made and not heard of
            self._pass(61)
            self._as(0, self._duties)
            if self._is_drained():
                break
        self._balances()

    def _heal(self) -> None:
        failpoints._armed = None
        backend = self.world.backend
        backend.before_create = backend.after_create = None
        backend.stale, self.shown_at = False, None
        backend.away = self.world.registry.away = self.world.objects.away = False
        self.the_rules_change("as it was")

    def _is_drained(self) -> bool:
        counted = self.world.store.account.gauges()
        is_open = set(counted["run"]) - {str(state) for state in TERMINAL}
        return not (counted["event"].get("accepted") or counted["decision"].get("wait") or is_open)

    def _balances(self) -> None:
        minute = timedelta(seconds=60)
        found = self.world.store.account.verify(self.world.clock.now(), patience=minute, settle=minute)
        assert self._is_drained(), found
        assert not any(found[name] for name in ("lost", "stuck", "twice", "unrecorded")), found
        assert self.aged or found["events"]["accepted"] == len(self.ids)
        made_of = Counter(key for key, _ in self.world.backend.created)
        keys = {run_key(name, self.ids[thing], turn): (name, thing, turn) for name, thing, turn in self.owed if thing}
        assert set(made_of) <= set(keys)
        wrong = {
            turn: (made_of[key], self.owed[turn]) for key, turn in keys.items() if made_of[key] not in self.owed[turn]
        }
        dead_ones = {key for key in keys if (item := self.world.store.runs.get(key)) and not item.backend_id}
        wrong = {turn: told for key, turn in keys.items() if (told := wrong.get(turn)) and key not in dead_ones}
        assert not wrong, (wrong, found)
        self._in_order()
        assert len(dead_ones) <= self.refused + sum(0 in owed for owed in self.owed.values())

    def _in_order(self) -> None:
        """A rule's runs on one subject, as they were decided."""
        runs = {item.run_key: item for item in self.world.store.runs.list(Query(limit=500))}
        of_subject: dict[tuple[str, str], list[str]] = {}
        for key, _ in self.world.backend.created:
            if (item := runs.get(key)) is not None:
                of_subject.setdefault((item.rule, item.subject), []).append(item.id)
        assert all(ids == sorted(ids) for ids in of_subject.values())

    def teardown(self) -> None:
        try:
            if sys.exc_info()[0] is None:
                self.all_is_healed_and_drained()
        finally:
            failpoints._armed = None
            self.parts.close()


def _file(name: str) -> str:
    return f"apiVersion: kfp-triggers/v1\nrules:{SETS[name]}"


def _names(name: str) -> set[str]:
    return {"alone", "train", "retrain"} | ({"score"} if "score:" in SETS[name] else set())


def _empty(world: World) -> None:
    with world.store.database.write() as connection:
        for table in reversed(metadata.sorted_tables):
            connection.execute(table.delete())
    for fake in (world.backend, world.registry, world.objects, world.bell, world.clock):
        vars(fake).clear()
        vars(fake).update(vars(type(fake)()))


def test_whatever_happens_each_event_makes_the_runs_it_should(world: World) -> None:
    chosen = settings()
    few = {} if chosen.max_examples > 100 else {"max_examples": 20, "stateful_step_count": 30, "derandomize": True}
    quick = settings(chosen, deadline=None, suppress_health_check=list(HealthCheck), **few)
    run_state_machine_as_test(type("Played", (Model,), {"world": world}), settings=quick)
