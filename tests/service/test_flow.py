"""From an event to the end of its run, with everything real but the backend, the registry and the object store."""

import dataclasses
import json
from collections.abc import Callable

import pytest
from fakes import Killed
from world import RULES, World

from service.errors import Permanent, Temporary
from service.flow.sweep import LIMIT, sweep
from service.ledger import Arrival
from service.lifecycle import State
from service.records import Accepted, EventState, Query
from triggers.reason import Reason

Drop = Callable[..., str]


def only_run(world: World):  # type: ignore[no-untyped-def]
    (run,) = world.store.runs.list(Query())
    return run


def test_an_object_becomes_one_run_with_computed_parameters(world: World, drop: Drop) -> None:
    event_id = drop("incoming/eu/a b+c%é.csv")
    world.answer()
    run = only_run(world)
    assert run.params["uri"] == "s3://user-ids/incoming/eu/a b+c%é.csv"
    assert run.params["model_version"] == 3
    assert run.params["run_key"] == run.run_key
    assert run.params["report_uri"] == f"s3://kfp-triggers/reports/{run.run_key}"
    assert run.state is State.SUBMITTED
    assert [key for key, _ in world.backend.created] == [run.run_key]
    event = world.store.events.get(event_id)
    assert event is not None
    assert event.state is EventState.DECIDED


def test_a_run_is_followed_to_its_end_and_its_report_becomes_lineage(world: World, drop: Drop) -> None:
    drop()
    world.answer()
    run = only_run(world)
    report = {
        "inputs": [
            {"namespace": "s3://user-ids", "name": "incoming/a.csv", "facets": {"version": {"datasetVersion": "e1"}}},
            {"namespace": "models:", "name": "income-classifier/3"},
        ],
        "outputs": [{"namespace": "s3://predictions", "name": "a.parquet"}],
        "run": {"facets": {"kfpTriggers_report": {"rows": 2}}},
    }
    world.objects.found[f"{run.report_uri}/write_data.json"] = json.dumps(report).encode()
    world.objects.found[f"{run.report_uri}/broken.json"] = b"["
    world.backend.end()
    world.later(1)
    ended = only_run(world)
    assert ended.state is State.SUCCEEDED
    assert ended.recorded_at is not None
    assert ended.outputs["reports"]["write_data.json"] == {"rows": 2}
    wrote = [edge.target for edge in world.store.lineage.out_of(f"run:{run.run_key}") if edge.relation == "wrote"]
    assert wrote == ["s3://predictions/a.parquet"]
    read = {edge.source for edge in world.store.lineage.into(f"run:{run.run_key}")}
    assert {"s3://user-ids/incoming/a.csv", "models:/income-classifier/3"} <= read


def test_what_a_step_and_the_registry_know_of_a_version_stands_on_one_edge(world: World, drop: Drop) -> None:
    drop()
    world.answer()
    run = only_run(world)
    about = {"_producer": "p", "window": "2026-10-01/2026-11-01", "validation": "9 of 9", "rows": 7, "x": "y" * 900}
    facets = {"version": {"datasetVersion": "4"}, "kfpTriggers_about": about}
    report = {"outputs": [{"namespace": "models:", "name": "income-classifier/4", "facets": facets}]}
    world.objects.found[f"{run.report_uri}/register_model.json"] = json.dumps(report).encode()
    world.registry.made_by[run.run_key] = 4
    world.backend.end()
    world.later(1)

    (edge,) = [one for one in world.store.lineage.out_of(f"run:{run.run_key}") if one.target.startswith("models:")]
    assert edge.data == {
        "run_id": "r", "version": "4", "window": "2026-10-01/2026-11-01", "validation": "9 of 9", "x": "y" * 200
    }  # fmt: skip


def test_every_move_of_a_run_is_kept(world: World, drop: Drop) -> None:
    drop()
    world.answer()
    world.backend.end(State.FAILED, "read_data: no such file")
    world.later(1)
    moves = [(move.before, str(move.after)) for move in world.store.runs.transitions(only_run(world).run_key)]
    assert moves == [("", "ready"), ("ready", "submitting"), ("submitting", "submitted"), ("submitted", "failed")]
    assert only_run(world).error == "read_data: no such file"


def test_an_event_that_no_rule_wants_ends_as_unmatched(world: World, drop: Drop) -> None:
    event_id = drop("elsewhere/a.csv")
    world.answer()
    event = world.store.events.get(event_id)
    assert event is not None
    assert (event.state, event.reason) == (EventState.UNMATCHED, Reason.NO_RULE)


def test_the_same_object_told_twice_runs_once(world: World, drop: Drop) -> None:
    first = drop()
    second = drop(request="R2")
    world.answer()
    assert first == second
    assert len(world.backend.created) == 1


@pytest.mark.parametrize("point", ["before_create", "after_create"])
def test_killed_around_the_post_there_is_still_one_run(world: World, drop: Drop, point: str) -> None:
    drop()
    setattr(world.backend, point, Killed())
    with pytest.raises(Killed):
        world.answer()
    world.bell.rung.clear()
    for _ in range(6):
        world.later(30)
        world.answer()
    assert len(world.backend.created) == 1
    assert only_run(world).backend_id == "id-0"
    assert verify(world)["lost"] == verify(world)["twice"] == verify(world)["stuck"] == []


def test_an_unclear_answer_settles_before_another_post(world: World, drop: Drop) -> None:
    drop()
    world.backend.after_create = Temporary("time-out")
    world.backend.stale = True
    world.answer()
    assert only_run(world).state is State.SUBMITTING
    world.later(59)
    world.answer()
    assert only_run(world).state is State.SUBMITTING
    world.backend.stale = False
    world.later(2)
    world.later(15)
    assert only_run(world).state in {State.SUBMITTED, State.RUNNING}
    assert only_run(world).reason in {Reason.ADOPTED, Reason.OBSERVED_STATE}
    assert len(world.backend.created) == 1


def test_a_refused_connection_is_tried_again_soon(world: World, drop: Drop) -> None:
    drop()
    world.backend.before_create = Temporary("refused", delay=2, nothing_happened=True)
    world.answer()
    assert only_run(world).state is State.READY
    world.later(15)
    assert only_run(world).state in {State.SUBMITTED, State.RUNNING}


def test_a_backend_that_refuses_for_good_ends_the_run_with_its_reason(world: World, drop: Drop) -> None:
    drop()
    world.backend.before_create = Permanent("400: no such experiment")
    world.answer()
    assert (only_run(world).state, only_run(world).error) == (State.DEAD, "400: no such experiment")


def test_without_a_bell_the_sweep_does_it_all(world: World, drop: Drop) -> None:
    drop()
    world.bell.rung.clear()
    world.later(11)  # the takeover time: decide
    world.bell.rung.clear()
    world.later(11)  # submit
    world.bell.rung.clear()
    assert len(world.backend.created) == 1
    assert only_run(world).state is State.RUNNING


def test_what_is_due_for_less_than_the_takeover_time_is_rung_again(world: World, drop: Drop) -> None:
    event_id = drop()
    world.bell.rung.clear()
    world.clock.forward(3)
    sweep(world.app)
    assert world.bell.rung == [("events.decide", event_id)]
    assert world.store.runs.list(Query()) == []


def test_nothing_is_rung_again_while_rings_enough_wait_to_be_heard(world: World, drop: Drop) -> None:
    event_id = drop()
    world.bell.rung.clear()
    world.clock.forward(3)
    world.bell.unheard = LIMIT
    sweep(world.app)
    assert world.bell.rung == []
    world.bell.unheard -= 1
    sweep(world.app)
    assert world.bell.rung == [("events.decide", event_id)]


def test_a_message_delivered_many_times_makes_one_run(world: World, drop: Drop) -> None:
    drop()
    world.bell.rung *= 5
    world.answer()
    assert len(world.backend.created) == 1


TWO_RULES = (
    RULES
    + """
  neighbour:
    trigger: {source: uploads, event: object.created, key: "incoming/**"}
    run: {pipeline: scoring@v1, params: {uri: "${event.object}"}}
"""
)


def test_a_dead_registry_delays_its_own_rule_alone(world: World, drop: Drop) -> None:
    world.rules(TWO_RULES)
    world.registry.away = True
    event_id = drop()
    world.answer()
    outcomes = {item.rule: (item.outcome, item.reason) for item in world.store.decisions.of_event(event_id)}
    assert outcomes == {"neighbour": ("run", "matched"), "score": ("wait", "lookup_unavailable")}
    world.registry.away = False
    world.later(20)
    world.answer()
    assert {run.rule for run in world.store.runs.list(Query())} == {"neighbour", "score"}


def test_the_model_is_the_one_of_the_decision(world: World, drop: Drop) -> None:
    drop()
    world.bell.rung, rung = [], world.bell.rung
    for task, key in rung:
        from service.flow.steps import step

        step(world.app, task, key)
    world.registry.version = 4
    world.answer()
    assert only_run(world).params["model_version"] == 3


def test_a_rule_whose_expression_fails_is_a_skip_with_its_reason(world: World, drop: Drop) -> None:
    world.rules(RULES.replace('uri: "${event.object}"', "uri: \"${event.metadata['owner']}\""))
    event_id = drop()
    world.answer()
    (decision,) = world.store.decisions.of_event(event_id)
    assert (decision.outcome, decision.reason) == ("skip", "rule_error")
    assert "owner" in decision.detail


def test_live_placeholders_never_reach_a_parameter(world: World, drop: Drop) -> None:
    event_id = drop("incoming/{{workflow.name}}.csv")
    world.answer()
    (decision,) = world.store.decisions.of_event(event_id)
    assert (decision.outcome, decision.reason) == ("skip", "bad_parameter")


def test_paused_events_wait_and_run_when_the_rule_is_live_again(world: World, drop: Drop) -> None:
    world.rules(RULES.replace("defaults", "defaults").replace("  score:\n", "  score:\n    mode: paused\n"))
    event_id = drop()
    world.answer()
    (decision,) = world.store.decisions.of_event(event_id)
    assert (decision.outcome, decision.reason) == ("wait", "paused")
    world.rules(RULES)
    world.later(31)
    world.answer()
    assert len(world.backend.created) == 1


def test_a_rule_that_was_removed_ends_its_waiting_decisions(world: World, drop: Drop) -> None:
    world.rules(RULES.replace("  score:\n", "  score:\n    mode: paused\n"))
    event_id = drop()
    world.answer()
    world.rules("apiVersion: kfp-triggers/v1\nrules: {}\n")
    world.later(31)
    world.answer()
    (decision,) = world.store.decisions.of_event(event_id)
    assert (decision.outcome, decision.reason) == ("skip", "rule_removed")


def test_a_broken_rule_file_leaves_the_old_set_in_force(world: World, drop: Drop) -> None:
    world.app.rules.now()
    world.rules("apiVersion: kfp-triggers/v1\nrules: {score: {trigger: 5}}\n")
    assert world.app.rules.now().problems
    drop()
    world.answer()
    assert len(world.backend.created) == 1


def test_an_output_of_a_rule_does_not_start_that_rule(world: World, drop: Drop) -> None:
    world.rules(RULES.replace("s3://predictions/incoming/${event.name}-${run.key}", "s3://user-ids/incoming/out.csv"))
    drop()
    world.answer()
    event_id = drop("incoming/out.csv", eTag="other", request="R2")
    world.answer()
    (decision,) = world.store.decisions.of_event(event_id)
    assert (decision.outcome, decision.reason) == ("skip", "loop")


def test_an_object_with_our_run_key_in_its_metadata_inherits_the_cause(world: World, drop: Drop) -> None:
    drop()
    world.answer()
    key = only_run(world).run_key
    event_id = drop("incoming/copy.csv", eTag="o", request="R2", userMetadata={"X-Amz-Meta-Run-Key": key})
    world.answer()
    (decision,) = world.store.decisions.of_event(event_id)
    assert decision.reason == "loop"


def test_a_cancelled_run_ends_where_it_is(world: World, drop: Drop) -> None:
    drop()
    world.answer()
    key = only_run(world).run_key
    world.store.runs.ask_to_cancel(key, world.clock.now())
    world.later(1)
    assert world.backend.cancelled == ["id-0"]
    assert (only_run(world).state, only_run(world).reason) == (State.CANCELLED, Reason.CANCEL_ASKED)


def test_a_run_is_cancelled_before_its_backend_has_it(world: World, drop: Drop) -> None:
    drop()
    world.backend.before_create = Temporary("refused", delay=100, nothing_happened=True)
    world.answer()
    world.store.runs.ask_to_cancel(only_run(world).run_key, world.clock.now())
    world.later(1)
    assert only_run(world).state is State.CANCELLED
    assert world.backend.created == []


def test_a_report_that_cannot_be_read_now_is_read_later(world: World, drop: Drop) -> None:
    drop()
    world.answer()
    world.objects.away = True
    world.backend.end()
    world.later(1)
    assert only_run(world).recorded_at is None
    world.objects.away = False
    world.later(11)
    assert only_run(world).recorded_at is not None


def test_a_backend_that_is_away_loses_nothing(world: World, drop: Drop) -> None:
    world.app.rules.now()
    world.backend.away = True
    event_id = drop()
    world.answer()
    (decision,) = world.store.decisions.of_event(event_id)
    assert (decision.outcome, decision.reason) == ("wait", "pipeline_unavailable")
    world.backend.away = False
    world.later(45)
    world.answer()
    assert len(world.backend.created) == 1


LOCKED = RULES + "    limits: {lock: scoring, max: 1, when_busy: wait}\n"


def test_a_lock_is_granted_in_order_and_freed_by_the_end(world: World, drop: Drop) -> None:
    world.rules(LOCKED)
    for number in range(3):
        drop(f"incoming/{number}.csv", eTag=str(number), request=str(number))
    world.answer()
    for made in (1, 2, 3):
        assert len(world.backend.created) == made
        world.backend.end()
        world.later(1)
        world.answer()
    assert verify(world)["runs"] == {"succeeded": 3}


def test_busy_skips_when_the_rule_says_so(world: World, drop: Drop) -> None:
    world.rules(LOCKED.replace("when_busy: wait", "when_busy: skip"))
    first, second = drop("incoming/1.csv", eTag="1", request="1"), drop("incoming/2.csv", eTag="2", request="2")
    world.answer()
    outcomes = [world.store.decisions.of_event(one)[0].reason for one in (first, second)]
    assert outcomes == ["matched", "busy"]


def verify(world: World):  # type: ignore[no-untyped-def]
    from datetime import timedelta

    return world.store.account.verify(world.clock.now(), patience=timedelta(seconds=60), settle=timedelta(seconds=60))


def test_started_on_broken_files_the_last_rules_in_force_stay_so(world: World, drop: Drop) -> None:
    world.app.rules.now()
    world.rules("apiVersion: kfp-triggers/v1\nrules: {score: {trigger: 5}}\n")
    world.restart()
    assert world.app.rules.now().problems
    drop()
    world.answer()
    assert len(world.backend.created) == 1


def test_listings_are_filtered_by_what_stands_in_other_tables(world: World, drop: Drop) -> None:
    drop()
    world.answer()
    for rule, source, count in (("score", "uploads", 1), ("other", None, 0), (None, "drift", 0)):
        query = Query(rule=rule, source=source)
        listings = (
            world.store.events.list,
            world.store.events.deliveries,
            world.store.decisions.list,
            world.store.runs.list,
        )
        assert [len(listing(query)) for listing in listings] == [count] * 4


def test_an_error_of_any_bytes_ends_the_run(world: World, drop: Drop) -> None:
    drop()
    world.answer()
    world.backend.end(State.FAILED, "cannot read \udcff.csv")
    world.later(1)
    assert (only_run(world).state, only_run(world).error) == (State.FAILED, "cannot read ?.csv")


def test_what_the_store_refuses_for_good_is_kept_as_quarantined(world: World, drop: Drop) -> None:
    real, refused = world.store.events.accept, []

    def accept(arrival: Arrival) -> Accepted:
        if not refused:
            refused.append(arrival)
            raise ValueError("a row that no retry will make good")
        return real(arrival)

    world.app = dataclasses.replace(world.app, accept=accept)
    event = world.store.events.get(drop())
    assert event is not None
    assert event.state is EventState.QUARANTINED


def test_a_full_backend_is_left_be_and_takes_the_oldest_when_a_run_ends(world: World, drop: Drop) -> None:
    world.backend.room = 1
    for number in range(3):
        drop(f"incoming/{number}.csv", eTag=str(number), request=str(number))
    world.answer()
    keys = [run.run_key for run in reversed(world.store.runs.list(Query()))]
    for made in (1, 2, 3):
        assert [key for key, _ in world.backend.created] == keys[:made]
        world.backend.end()
        world.later(1)
        world.answer()
    moves = [move.after for key in keys for move in world.store.runs.transitions(key)]
    assert moves.count(State.SUBMITTING) == 3
