"""An alias is moved by compare-and-set: who wins, who is told, what a crash leaves, what rules and lineage get."""

import base64
import hashlib
import hmac
import json
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from typing import Any

import pytest
from fakes import Killed
from structlog.testing import capture_logs
from ulid import ULID
from world import RULES, SOURCES, TOKEN, World

from service import metrics
from service.errors import Temporary
from service.flow.origins import trace
from service.flow.promote import approve, champion_before, promote, reject
from service.flow.receive import receive
from service.flow.record import record
from service.records import Promotion, PromotionState, Query, RunRecord
from service.settings import MlflowSettings
from service.tracking import MlflowRegistry
from triggers.event import Delivery, rfc3339
from triggers.reason import Reason

MODEL = "income-classifier"
DEPLOY = """
  deploy:
    trigger: {source: registry, event: model.alias, model: income-*, alias: champion}
    run: {pipeline: scoring@v1, params: {uri: "models:/${event.model}/${string(event.version)}"}}
"""
VERDICT = {
    "model": MODEL,
    "alias": "champion",
    "candidate": 5,
    "champion": 3,
    "verdict": "promote",
    "mode": "auto",
    "metric": "accuracy",
    "margin": 0.0,
    "candidate_value": 0.87,
    "champion_value": 0.85,
    "rows": 4000,
    "slices": [{"slice": "sex=Female", "rows": 1900, "candidate": 0.9, "champion": 0.89, "worse": False}],
    "reasons": ["accuracy is 0.02 better"],
}

Drop = Callable[..., str]
Train = Callable[..., RunRecord]


@pytest.fixture(autouse=True)
def _listening(world: World) -> None:
    """Moves of the champion start the deployment."""
    mlflow = f"  registry: {{type: mlflow, secrets: [{{file: uploads.token}}], models: [{MODEL}]}}\n"
    (world.home / "sources.yaml").write_text(SOURCES + mlflow)
    world.rules(RULES + DEPLOY)


@pytest.fixture
def train(world: World, drop: Drop) -> Train:
    """A run that registered version 5 ended with this verdict; the run."""

    def trained(key: str = "incoming/a.csv", *, made: int = 5, **changes: Any) -> RunRecord:
        drop(key)
        world.answer()
        run = world.store.runs.list(Query(rule="score"))[0]
        world.registry.made_by[run.run_key] = made
        told = {"run": {"facets": {"kfpTriggers_report": {"promotion": VERDICT | changes}}}}
        world.objects.found[f"{run.report_uri}/compare_models.json"] = json.dumps(told).encode()
        world.backend.end()
        world.later(1)
        found = world.store.runs.get(run.run_key)
        assert found is not None
        return found

    return trained


def wanted(world: World, before: int, after: int, **changes: Any) -> Promotion:
    """What a person asks for."""
    asked = Promotion(
        id=str(ULID()),
        model=MODEL,
        alias="champion",
        from_version=before,
        to_version=after,
        action="promote",
        state=PromotionState.MOVING,
        reason=Reason.BY_PERSON,
        by="ada",
        created_at=world.clock.now(),
    )
    return replace(asked, **changes)


def moved(world: World, before: int, after: int, **changes: Any) -> Promotion:
    """A person's move, made."""
    world.clock.forward(60)
    ended = promote(world.app, wanted(world, before, after, **changes))
    assert ended is not None
    return ended


def log(world: World) -> list[Promotion]:
    return list(world.store.promotions.list(Query()))


def told(world: World) -> list[dict[str, Any]]:
    """The data of every event about the alias, oldest first."""
    return [dict(one.event.data) for one in reversed(world.store.events.list(Query(source="registry")))]


def webhook(world: World, version: int, *, delivery: str = "d1", at: float = 0.0) -> Delivery:
    """MLflow's word of a move, so many seconds from now."""
    now = world.clock.now() + timedelta(seconds=at)
    data = {"name": MODEL, "alias": "champion", "version": str(version)}
    sent = {"entity": "model_version_alias", "action": "created", "timestamp": rfc3339(now), "data": data}
    body, stamp = json.dumps(sent).encode(), str(int(now.timestamp()))
    signed = hmac.new(TOKEN.encode(), f"{delivery}.{stamp}.".encode() + body, hashlib.sha256).digest()
    headers = {
        "content-type": "application/json",
        "x-mlflow-delivery-id": delivery,
        "x-mlflow-timestamp": stamp,
        "x-mlflow-signature": f"v1,{base64.b64encode(signed).decode()}",
    }
    return Delivery(source="registry", headers=headers, body=body, received_at=world.clock.now())


# A run's verdict.


@pytest.mark.parametrize(
    ("changes", "state", "reason", "alias"),
    [
        ({}, "done", Reason.GATE_PASSED, 5),
        ({"verdict": "refuse"}, "refused", Reason.GATE_REFUSED, 3),
        ({"verdict": "ask"}, "asked", Reason.GATE_ASKS, 3),
        ({"mode": "approve"}, "asked", Reason.GATE_ASKS, 3),
        ({"verdict": "never"}, "refused", Reason.NEVER_PROMOTES, 3),
        ({"mode": "never"}, "refused", Reason.NEVER_PROMOTES, 3),
        ({"champion": 2}, "lost", Reason.ALIAS_ELSEWHERE, 3),
        ({"verdict": "first", "mode": "approve", "champion": 0}, "asked", Reason.GATE_ASKS, 3),
        ({"verdict": "first", "mode": "never", "champion": 0}, "refused", Reason.NEVER_PROMOTES, 3),
    ],
)
def test_a_verdict_becomes_what_it_says_at_most(
    world: World, train: Train, changes: dict[str, Any], state: str, reason: Reason, alias: int
) -> None:
    run = train(**changes)
    (found,) = log(world)
    assert (found.state, found.reason, found.by, found.run_key) == (state, reason, "rule score", run.run_key)
    assert found.figures["slices"] == VERDICT["slices"]
    assert world.registry.version == alias


def test_the_first_version_was_crowned_by_its_pipeline(world: World, train: Train) -> None:
    world.registry.version = 5
    train(verdict="first", champion=0)
    (found,) = log(world)
    assert (found.state, found.from_version, world.registry.sets) == (PromotionState.DONE, 0, [])


def test_a_verdict_that_came_too_late_says_where_the_champion_is(world: World, train: Train) -> None:
    world.registry.version = 4
    train()
    assert log(world)[0].detail == "the champion is 4 now, the comparison was with 3"


def test_a_run_that_is_recorded_again_judges_once(world: World, train: Train) -> None:
    run = train()
    moved(world, 5, 3, action="rollback")
    record(world.another_process("another"), run)
    assert [str(one.state) for one in log(world)] == ["done", "done"]
    assert world.registry.version == 3


@pytest.mark.parametrize(
    "changes",
    [
        {"made": 6},
        {"model": "somebody-elses"},
        {"candidate": True, "made": 1},
        {"candidate": -1},
        {"verdict": "crown it"},
        {"alias": "a b"},
        {"candidate_value": "high"},
        {"reasons": ["x" * 501]},
        {"slices": [{"slice": "a"}] * 101},
        {"champion": 10**30},
    ],
    ids=str,
)
def test_what_a_run_may_not_say_moves_nothing_and_the_run_is_recorded(
    world: World, train: Train, changes: dict[str, Any]
) -> None:
    assert train(**changes).recorded_at is not None
    assert (log(world), world.registry.version) == ([], 3)


def test_a_failed_run_has_no_verdict(world: World, drop: Drop, train: Train) -> None:
    from service.lifecycle import State

    end = world.backend.end
    world.backend.end = lambda: end(State.FAILED, "a later step failed")  # type: ignore[method-assign,assignment]
    train()
    assert log(world) == []


# Two at once.


def test_a_second_move_of_the_alias_is_told_that_one_is_under_way(world: World) -> None:
    world.registry.before_set = Killed()
    with pytest.raises(Killed):
        moved(world, 3, 4)
    late = moved(world, 3, 5)
    assert (late.state, late.reason) == (PromotionState.LOST, Reason.MOVE_UNDER_WAY)
    assert late.detail.startswith("another move of income-classifier@champion is under way, to 4 (promotion ")


def test_of_two_that_compared_with_the_same_champion_the_second_loses(world: World) -> None:
    first, second = moved(world, 3, 4), moved(world, 3, 5)
    assert (first.state, second.state) == (PromotionState.DONE, PromotionState.LOST)
    assert second.detail == "the champion is 4 now, the move was asked for with 3 there"
    assert world.registry.sets == [4]


def test_a_move_by_somebody_else_between_setting_and_reading_is_seen(world: World) -> None:
    class Hasty(type(world.registry)):  # type: ignore[misc]
        def set_alias(self, name: str, alias: str, version: int) -> None:
            super().set_alias(name, alias, version)
            self.version = 8

    world.registry.__class__ = Hasty
    assert moved(world, 3, 4).state is PromotionState.LOST


# Crashes and a registry that does not answer.


@pytest.mark.parametrize("point", ["before_set", "after_set"])
def test_killed_around_the_setting_the_sweep_ends_the_move(world: World, train: Train, point: str) -> None:
    world.objects.away = True
    run = train()
    world.objects.away = False
    setattr(world.registry, point, Killed())
    with pytest.raises(Killed):
        record(world.app, run)
    for _ in range(3):
        world.later(60)
        world.answer()
    (found,) = log(world)
    assert (found.state, world.registry.version) == (PromotionState.DONE, 5)
    assert len(told(world)) == 1
    assert world.store.runs.list(Query(rule="score"))[0].recorded_at is not None


def test_a_lost_answer_of_the_registry_is_asked_again(world: World, train: Train) -> None:
    world.registry.after_set = Temporary("time-out")
    assert train().recorded_at is not None
    assert log(world)[0].state is PromotionState.MOVING
    world.later(6)
    assert log(world)[0].state is PromotionState.DONE
    assert len(told(world)) == 1


def test_a_move_waits_for_a_registry_that_is_away(world: World) -> None:
    world.registry.away = True
    with pytest.raises(Temporary):
        moved(world, 3, 4)
    world.later(3600)
    assert log(world)[0].state is PromotionState.MOVING
    world.registry.away = False
    world.later(61)
    assert (log(world)[0].state, world.registry.version) == (PromotionState.DONE, 4)


def test_a_version_that_there_is_not_is_refused(world: World) -> None:
    found = moved(world, 3, 99)
    assert (found.state, found.detail) == (PromotionState.REFUSED, "there is no version 99 of income-classifier")


def test_a_registry_that_answers_too_slowly_is_not_written_to(world: World) -> None:
    class Slow(type(world.registry)):  # type: ignore[misc]
        def aliases(self, name: str) -> Any:
            world.clock.forward(world.app.pace.lease)
            return super().aliases(name)

    world.registry.__class__ = Slow
    with pytest.raises(Temporary, match="too slowly"):
        moved(world, 3, 4)
    assert world.registry.sets == []


# A person's answer.


def test_an_approved_move_is_made_and_names_who_approved(world: World, train: Train) -> None:
    run = train(verdict="ask")
    (asked,) = log(world)
    ended = approve(world.app, asked.id, "ada", "looks good")
    assert ended is not None
    assert (ended.state, ended.by, ended.reason, ended.run_key) == ("done", "ada", Reason.APPROVED, run.run_key)
    assert world.registry.version == 5
    assert approve(world.app, asked.id, "bob", "") is None


def test_an_approval_after_the_champion_changed_is_too_late(world: World, train: Train) -> None:
    train(verdict="ask")
    asked = log(world)[0]
    moved(world, 3, 4)
    ended = approve(world.app, asked.id, "ada", "")
    assert ended is not None
    assert (ended.state, world.registry.version) == (PromotionState.LOST, 4)


def test_an_approval_while_another_move_is_under_way_leaves_the_question_open(world: World, train: Train) -> None:
    train(verdict="ask")
    asked = log(world)[0]
    world.registry.before_set = Killed()
    with pytest.raises(Killed):
        moved(world, 3, 4)
    assert approve(world.app, asked.id, "ada", "") is None
    kept = world.store.promotions.get(asked.id)
    assert kept is not None
    assert kept.state is PromotionState.ASKED


def test_a_rejected_move_is_never_made(world: World, train: Train) -> None:
    train(verdict="ask")
    (asked,) = log(world)
    ended = reject(world.app, asked, "ada", "not on a Friday")
    assert ended is not None
    assert (ended.state, ended.by) == (PromotionState.REJECTED, "ada")
    assert approve(world.app, asked.id, "bob", "") is None
    assert reject(world.app, asked, "bob", "") is None
    assert world.registry.version == 3


# Going back.


def test_going_back_twice_goes_back_two_steps(world: World) -> None:
    moved(world, 3, 4)
    moved(world, 4, 5)
    back = []
    for there in (5, 4):
        before = champion_before(world.app, MODEL, "champion", there)
        back.append(before)
        moved(world, there, before, action="rollback")
    assert back == [4, 3]
    assert champion_before(world.app, MODEL, "champion", 3) == 0


def test_a_move_in_the_registry_itself_is_noticed_and_kept(world: World) -> None:
    moved(world, 3, 4)
    world.registry.version = 7
    lost = moved(world, 4, 5)
    outside = log(world)[0]
    assert lost.state is PromotionState.LOST
    assert (outside.from_version, outside.to_version, outside.reason) == (4, 7, Reason.MOVED_OUTSIDE)
    assert champion_before(world.app, MODEL, "champion", 7) == 4


# What rules are told.


def test_a_move_starts_the_rule_that_waits_for_it_once(world: World, train: Train) -> None:
    run = train()
    world.answer()
    (data,) = told(world)
    assert (data["version"], data["previous"], data["by"]) == (5, 3, "rule score")
    assert data["promotion"] == log(world)[0].id
    deployed = world.store.runs.list(Query(rule="deploy"))
    assert [one.params["uri"] for one in deployed] == ["models:/income-classifier/5"]
    assert deployed[0].causes == [*run.causes, "deploy"]


@pytest.mark.parametrize("state", ["refuse", "ask", "never"])
def test_what_is_not_moved_is_no_event(world: World, train: Train, state: str) -> None:
    train(verdict=state)
    assert told(world) == []


@pytest.mark.parametrize("first", ["the registry", "we"])
def test_our_move_told_by_the_registry_too_is_one_event(world: World, first: str) -> None:
    if first == "the registry":

        class Telling(type(world.registry)):  # type: ignore[misc]
            def set_alias(self, name: str, alias: str, version: int) -> None:
                super().set_alias(name, alias, version)
                receive(world.app, webhook(world, version))

        world.registry.__class__ = Telling
    moved(world, 3, 4)
    if first == "we":
        moved(world, 4, 5)  # it comes after the next move: late, and out of order
        assert receive(world.app, webhook(world, 4, at=-60)).duplicate
    world.answer()
    assert [one["version"] for one in told(world)] == ([4] if first == "the registry" else [4, 5])
    assert all(one["by"] == "ada" for one in told(world))
    assert len(world.store.runs.list(Query(rule="deploy"))) == len(told(world))


def test_the_crowning_of_a_first_version_is_one_event_with_the_registrys_word(world: World, train: Train) -> None:
    world.registry.version = 0

    def crowned() -> None:
        world.registry.version = 5
        receive(world.app, webhook(world, 5))
        end()

    end, world.backend.end = world.backend.end, crowned  # type: ignore[method-assign,assignment]
    train(verdict="first", champion=0)
    assert log(world)[0].state is PromotionState.DONE
    assert len(told(world)) == 1


def test_a_move_in_the_registry_itself_is_an_event_by_its_webhook(world: World) -> None:
    moved(world, 3, 4)
    world.clock.forward(600)
    assert not receive(world.app, webhook(world, 3, delivery="d2")).duplicate
    assert not receive(world.app, webhook(world, 4, delivery="d3")).duplicate
    assert receive(world.app, webhook(world, 4, delivery="d3")).duplicate
    assert [(one["version"], one["promotion"] != "") for one in told(world)] == [(4, True), (3, False), (4, False)]


# Lineage, account, metric.


@pytest.mark.parametrize(
    ("changes", "relation"),
    [
        ({}, "became champion in"),
        ({"verdict": "refuse"}, "refused in"),
        ({"verdict": "ask"}, "put to a person in"),
        ({"champion": 2}, "came too late in"),
    ],
)
def test_a_version_leads_to_what_became_of_it(
    world: World, train: Train, changes: dict[str, Any], relation: str
) -> None:
    run = train(**changes)
    node = f"promotion:{log(world)[0].id}"
    found = trace(world.store.lineage, "models:/income-classifier/5")
    assert [(one["relation"], one["target"]) for one in found["downstream"] if one["target"] == node] == [
        (relation, node)
    ]
    caused = trace(world.store.lineage, node)["upstream"]
    assert (f"run:{run.run_key}", "judged") in {(one["source"], one["relation"]) for one in caused}


def test_a_deployment_leads_back_to_the_run_that_trained_its_model(world: World, train: Train) -> None:
    run = train()
    world.answer()
    (deployed,) = world.store.runs.list(Query(rule="deploy"))
    up = {one["source"] for one in trace(world.store.lineage, f"run:{deployed.run_key}")["upstream"]}
    assert {f"promotion:{log(world)[0].id}", "models:/income-classifier/5", f"run:{run.run_key}"} <= up


def test_a_rollback_is_in_the_lineage_of_both_versions(world: World) -> None:
    moved(world, 3, 4)
    back = moved(world, 4, 3, action="rollback", reason=Reason.ROLLED_BACK)
    node = f"promotion:{back.id}"
    into = {(one.source, one.relation) for one in world.store.lineage.into(node)}
    assert into == {
        ("models:/income-classifier/3", "became champion again in"),
        ("models:/income-classifier/4", "gave way in"),
    }
    assert [one.target for one in world.store.lineage.out_of(node)] == ["models:/income-classifier@champion"]


def test_a_move_that_nobody_ends_is_stuck(world: World) -> None:
    world.registry.before_set = Killed()
    with pytest.raises(Killed):
        moved(world, 3, 4)
    world.clock.forward(3600)
    hour = timedelta(minutes=1)
    found = world.store.account.verify(world.clock.now(), patience=hour, settle=hour)
    assert found["stuck"] == [f"promotion:{log(world)[0].id}"]


def test_each_end_is_counted(world: World) -> None:
    def count(state: str) -> float:
        return metrics.promotions.labels(state=state)._value.get()

    before = count("done"), count("lost")
    moved(world, 3, 4)
    moved(world, 3, 5)
    assert (count("done"), count("lost")) == (before[0] + 1, before[1] + 1)


@pytest.mark.parametrize(
    ("status", "code", "state"),
    [
        (403, "PERMISSION_DENIED", PromotionState.REFUSED),
        (400, "BAD_REQUEST", PromotionState.REFUSED),
        (401, "UNAUTHENTICATED", PromotionState.MOVING),
    ],
)
def test_a_move_that_the_registry_refuses_ends_with_its_word(
    world: World, status: int, code: str, state: PromotionState
) -> None:
    class Mlflow(BaseHTTPRequestHandler):
        """It shows a model and lets nobody move its alias."""

        def do_GET(self) -> None:  # http.server's name
            there = [{"alias": "champion", "version": "3"}]
            self._say(200, {"registered_model": {"name": MODEL, "aliases": there}})

        def do_POST(self) -> None:
            self._say(status, {"error_code": code, "message": "not by you"})

        def _say(self, status: int, told: Any) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(told).encode())

        def log_message(self, *_: object) -> None:
            """Silent."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Mlflow) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_address[1]}"
        world.app = replace(world.app, registry=MlflowRegistry(MlflowSettings(tracking_uri=address)))
        if state is PromotionState.MOVING:
            with pytest.raises(Temporary, match="not by you"):
                moved(world, 3, 4)
        else:
            assert "not by you" in moved(world, 3, 4).detail
        server.shutdown()
    assert log(world)[0].state is state


@pytest.mark.parametrize("asked", [False, True], ids=["begun by a person", "approved after a day"])
def test_a_move_that_is_tried_in_vain_waits_longer_and_is_stuck_after_a_while(
    world: World, train: Train, asked: bool
) -> None:
    def stuck() -> list[str]:
        return world.store.account.verify(world.clock.now(), patience=timedelta(hours=1), settle=timedelta(0))["stuck"]

    tries: list[Any] = []

    class Away(type(world.registry)):  # type: ignore[misc]
        def set_alias(self, name: str, alias: str, version: int) -> None:
            tries.append(world.clock.now())
            raise Temporary("not now")

    if asked:
        train(verdict="ask")
        world.later(24 * 3600)
    world.registry.__class__ = Away
    with pytest.raises(Temporary):
        approve(world.app, log(world)[0].id, "ada", "") if asked else moved(world, 3, 4)
    for _ in range(9 * 60 // 5):
        world.later(5)
    assert stuck() == []
    for _ in range(2 * 60 // 5):
        world.later(5)
    assert stuck() == [f"promotion:{log(world)[0].id}"]
    waits = [(later - sooner).total_seconds() for sooner, later in pairwise(tries)]
    assert (waits[0], max(waits), waits == sorted(waits)) == (5, 65, True)


def test_a_run_that_cannot_be_recorded_holds_up_no_move(world: World, train: Train) -> None:
    world.registry.before_set = Killed()
    with pytest.raises(Killed):
        moved(world, 3, 4)
    world.objects.away = True
    train()

    class Broken(type(world.objects)):  # type: ignore[misc]
        def reports(self, uri: str) -> Any:
            raise ZeroDivisionError

    world.objects.__class__ = Broken
    with capture_logs() as logs:
        world.later(3600)
    assert log(world)[0].state is PromotionState.DONE
    assert "sweep_failed" in {one["event"] for one in logs}
