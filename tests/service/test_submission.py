"""One run of each decision in a backend that is not idempotent: lost answers, doubles, order, rate, what it is told."""

import itertools
import json
import subprocess
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import yaml
from fakes import SCORING
from world import RULES, World

from service.errors import Permanent, Temporary
from service.flow.receive import receive
from service.flow.retry import anew, retry
from service.flow.steps import step
from service.flow.submit import submit
from service.flow.sweep import sweep
from service.flow.watch import watch
from service.ledger import Rate
from service.lifecycle import State
from service.ports import Job, Observed
from service.records import Query, RunRecord
from triggers.event import Delivery
from triggers.reason import Reason

Drop = Callable[..., str]
PARAMS = '{uri: "${event.object}", model_version: "${lookup.model.version}"}'


def runs(world: World) -> list[RunRecord]:
    """The oldest first."""
    return list(reversed(world.store.runs.list(Query())))


def only_run(world: World) -> RunRecord:
    (run,) = runs(world)
    return run


def reasons(world: World, run_key: str) -> list[Reason]:
    return [move.reason for move in world.store.runs.transitions(run_key)]


def twice(world: World) -> list[str]:
    day = timedelta(days=1)
    return list(world.store.account.verify(world.clock.now(), patience=day, settle=day)["twice"])


# A lost answer.


def test_a_look_adopts_a_run_whose_answer_was_lost_before_its_settle_time_is_over(world: World, drop: Drop) -> None:
    drop()
    world.backend.after_create = Temporary("time-out")
    world.answer()
    world.later(2)
    assert only_run(world).state is State.SUBMITTED
    assert only_run(world).reason == Reason.ADOPTED
    for _ in range(10):
        world.later(30)
        world.answer()
    assert len(world.backend.created) == 1


def test_a_look_leaves_a_run_to_the_one_who_is_submitting_it(world: World, drop: Drop) -> None:
    drop()
    run = only_run_after_decision(world)
    begun = world.store.queue.begin(run, world.app.claim())
    assert begun is not None
    world.backend.created.append((run.run_key, "id-0"))
    world.backend.names[run.run_key] = run.display_name
    world.backend.seen["id-0"] = Observed(state=State.RUNNING)
    world.later(2)
    assert only_run(world).state is State.SUBMITTING


def only_run_after_decision(world: World) -> RunRecord:
    while not runs(world):
        task, key = world.bell.rung.pop(0)
        step(world.app, task, key)
    world.bell.rung.clear()
    return only_run(world)


def test_a_list_that_is_stale_for_longer_than_settle_makes_a_double_which_is_ended_and_counted(
    world: World, drop: Drop
) -> None:
    drop()
    world.backend.after_create = Temporary("time-out")
    world.backend.stale = True
    world.answer()
    for _ in range(4):
        world.later(31)
        world.answer()
    assert [backend_id for _, backend_id in world.backend.created] == ["id-0", "id-1"]
    assert only_run(world).backend_id == "id-1"
    world.backend.stale = False
    world.later(2)
    world.later(2)
    assert world.backend.cancelled == ["id-0"]
    (double,) = world.store.runs.doubles()
    assert (double.backend_id, double.cancelled_at is not None) == ("id-0", True)
    assert twice(world) == [f"run:{only_run(world).run_key} also as id-0"]
    world.backend.end()
    world.later(2)
    assert only_run(world).state is State.SUCCEEDED


def test_a_search_that_finds_two_keeps_the_older(world: World, drop: Drop) -> None:
    drop()
    world.backend.after_create = Temporary("time-out")
    world.answer()
    key = only_run(world).run_key
    world.backend.stale = True
    world.backend.created.append((key, "id-9"))
    world.backend.seen["id-9"] = Observed(state=State.RUNNING)
    world.later(59)
    world.backend.stale = False
    world.clock.forward(2)
    submit(world.app, key)
    assert only_run(world).backend_id == "id-0"
    assert [one.backend_id for one in world.store.runs.doubles()] == ["id-9"]


def test_a_late_copy_of_a_run_that_was_cancelled_before_it_began_is_ended(world: World, drop: Drop) -> None:
    drop()
    run = only_run_after_decision(world)
    world.store.runs.ask_to_cancel(run.run_key, world.clock.now())
    world.later(1)
    assert only_run(world).state is State.CANCELLED
    world.backend.created.append((run.run_key, "id-7"))
    world.backend.names[run.run_key] = run.display_name
    world.backend.seen["id-7"] = Observed(state=State.RUNNING)
    world.later(2)
    world.later(2)
    assert world.backend.cancelled == ["id-7"]


def test_a_backend_that_answers_unclearly_for_ever_is_given_up(world: World, drop: Drop) -> None:
    drop()
    for _ in range(60):
        world.backend.before_create = Temporary("500: internal server error")
        world.answer()
        world.later(31)
    assert only_run(world).state is State.DEAD
    assert only_run(world).reason == Reason.GIVEN_UP
    assert "500: internal server error" in only_run(world).error


def test_a_backend_that_is_away_for_a_day_costs_no_run(world: World, drop: Drop) -> None:
    drop()
    only_run_after_decision(world)
    for _ in range(100):
        world.backend.before_create = Temporary("refused", delay=5, nothing_happened=True)
        world.later(16)
        world.bell.rung.clear()
    assert only_run(world).state is State.READY
    world.backend.before_create = None
    world.later(16)
    assert len(world.backend.created) == 1


def test_who_slept_past_the_lease_undoes_nothing(world: World, drop: Drop) -> None:
    drop()
    key = only_run_after_decision(world).run_key
    other = world.another_process("other")

    def slept(job: Job) -> str:
        world.clock.forward(100)
        submit(other, key)  # nothing is there: it may be sent again
        again = world.store.runs.get(key)
        assert again is not None
        assert world.store.queue.begin(again, other.claim()) is not None  # and the other one is just sending it
        raise Temporary("refused", nothing_happened=True)

    world.backend.create = slept  # type: ignore[method-assign]
    submit(world.app, key)
    assert only_run(world).state is State.SUBMITTING
    assert only_run(world).holder.startswith("other")


def test_who_slept_past_the_lease_and_made_a_second_run_says_so(world: World, drop: Drop) -> None:
    drop()
    key = only_run_after_decision(world).run_key
    other, create = world.another_process("other"), world.backend.create

    def slept(job: Job) -> str:
        world.backend.create = create  # type: ignore[method-assign]
        world.clock.forward(100)
        submit(other, key)
        submit(other, key)
        return create(job)

    world.backend.create = slept  # type: ignore[method-assign]
    submit(world.app, key)
    assert only_run(world).backend_id == "id-0"
    assert [one.backend_id for one in world.store.runs.doubles()] == ["id-1"]


# Order and rate.


def test_a_newer_version_of_an_object_does_not_overtake_the_older(world: World, drop: Drop) -> None:
    drop(eTag="e1", sequencer="187A5B1C2D3E4F50", request="R1")
    world.backend.after_create = Temporary("time-out")
    world.backend.stale = True
    world.answer()
    drop(eTag="e2", sequencer="187A5B1C2D3E4F51F", request="R2")
    drop(key="incoming/other.csv", sequencer="187A5B1C2D3E4F52", request="R3")
    world.answer()
    first, second, other = runs(world)
    assert (first.state, second.state, other.state) == (State.SUBMITTING, State.READY, State.SUBMITTED)
    world.backend.stale = False
    world.later(2)
    world.answer()
    assert [key for key, _ in world.backend.created] == [first.run_key, other.run_key, second.run_key]


def test_a_rate_spaces_a_burst_and_keeps_its_order(world: World, drop: Drop) -> None:
    world.backend.rate = Rate(per_second=5, burst=3)
    for number in range(20):
        drop(key=f"incoming/{number:02}.csv", sequencer=f"187A5B1C2D3E4F{number:02X}", request=f"R{number}")
    world.answer()
    assert len(world.backend.created) == 3
    counts = []
    for _ in range(12):
        world.clock.forward(0.5)
        sweep(world.app)
        world.answer()
        counts.append(len(world.backend.created))
    assert counts[-1] == 20
    assert all(later - earlier <= 3 for earlier, later in itertools.pairwise(counts))
    assert [key for key, _ in world.backend.created] == [run.run_key for run in runs(world)]
    assert all(run.attempts == 1 for run in runs(world))


# What a backend is told.


def test_the_display_name_and_description_say_why_it_runs(world: World, drop: Drop) -> None:
    world.rules(RULES.replace(PARAMS, '{uri: "s3://x"}'))
    event_id = drop(key="incoming/" + "ü" * 300 + "\U0001f600\n.csv")
    world.answer()
    (job,) = world.backend.jobs
    assert len(job.display_name) <= 255
    assert job.display_name.startswith("score · ...")
    assert job.display_name.split()[-1] == job.run_key
    assert job.description.startswith("object.created s3://user-ids/incoming/")
    assert job.description.endswith(f"by rule score, event {event_id}")
    assert job.description.isprintable()
    assert max(job.display_name + job.description) <= "\uffff"


def test_a_rule_sets_experiment_caching_account_root_and_time_limit(world: World, drop: Drop) -> None:
    world.rules(
        RULES.replace(
            "      pipeline: scoring@v1\n",
            "      pipeline: scoring@v1\n      experiment: mine\n      caching: false\n      service_account: scorer\n"
            "      pipeline_root: s3://roots/x\n      time_limit: 2h\n",
        )
    )
    drop()
    world.answer()
    (job,) = world.backend.jobs
    assert (job.experiment, job.caching, job.service_account) == ("mine", False, "scorer")
    assert (job.pipeline_root, job.time_limit) == ("s3://roots/x", 7200)


def test_values_that_no_parameter_may_hold_go_by_the_event_document(
    world: World, drop: Drop, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = dict(SCORING.inputs) | {"event_uri": SCORING.inputs["run_key"]}
    monkeypatch.setattr("fakes.SCORING", SCORING.__class__(**{**SCORING.__dict__, "inputs": inputs}))
    world.rules(
        RULES.replace(
            '{uri: "${event.object}", model_version: "${lookup.model.version}"}',
            '{uri: "s3://x"}\n      document: {key: "${event.key}", long: "${event.key + event.key}"}',
        )
    )
    event_id = drop(key="incoming/{{workflow.name}}\U0001f600.csv")
    world.answer()
    run = only_run(world)
    uri = run.params["event_uri"]
    assert uri == f"s3://kfp-triggers/reports/{run.run_key}/event/event.json"
    told = json.loads(world.objects.found[uri])
    assert told["event"]["id"] == event_id
    assert told["event"]["data"]["key"] == told["values"]["key"] == "incoming/{{workflow.name}}\U0001f600.csv"
    assert told["run_key"] == run.run_key
    world.backend.end()
    world.later(2)
    assert "event.json" not in only_run(world).outputs.get("reports", {})


def test_text_that_the_workflow_engine_would_evaluate_reaches_no_parameter(world: World, drop: Drop) -> None:
    drop(key="incoming/{{=1+1}}.csv")
    world.answer()
    assert runs(world) == []
    (decision,) = world.store.decisions.list(Query())
    assert decision.reason == Reason.BAD_PARAMETER
    assert "{{" in decision.detail


PACKAGE = {
    "pipelineInfo": {"name": "Train Me"},
    "root": {"dag": {}, "inputDefinitions": {"parameters": {"n": {"parameterType": "NUMBER_INTEGER"}}}},
    "schemaVersion": "2.1.0",
    "sdkVersion": "kfp-2.17.0",
}


def test_a_package_below_the_home_is_kept_as_it_was_decided_on(world: World, drop: Drop) -> None:
    content = yaml.safe_dump(PACKAGE).encode()
    (world.home / "train.yaml").write_bytes(content)
    world.rules(RULES.replace("pipeline: scoring@v1", "package: train.yaml").replace(PARAMS, '{n: "${event.size}"}'))
    drop()
    while not runs(world):
        step(world.app, *world.bell.rung.pop(0))
    (world.home / "train.yaml").write_text("something else")
    world.answer()
    (job,) = world.backend.jobs
    assert job.package is not None
    assert (job.package.content, job.package.upload) == (content, False)
    assert (job.params["n"], job.pipeline.name, job.pipeline.version) == (12, "Train Me", job.pipeline.digest[:12])


def git(*argv: str, cwd: Path) -> str:
    done = subprocess.run(["git", *argv], cwd=cwd, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    git("init", "--quiet", "--initial-branch=main", cwd=folder)
    git("config", "user.email", "ada@example.com", cwd=folder)
    git("config", "user.name", "Ada", cwd=folder)
    (folder / "train.yaml").write_text(yaml.safe_dump(PACKAGE))
    git("add", ".", cwd=folder)
    git("commit", "--quiet", "-m", "a pipeline", cwd=folder)
    return folder


COMMITTED = """
apiVersion: kfp-triggers/v1
rules:
  retrain:
    trigger: {source: code, event: git.push}
    run: {package_from_commit: train.yaml, params: {n: 1}, service_account: cluster-admin}
"""


def push(world: World, repository: Path, sha: str, branch: str = "main") -> None:
    (world.home / "sources.yaml").write_text(
        "apiVersion: kfp-triggers/v1\nsources:\n  code: {type: git, auth: none, repositories: {acme/Income Model: {"
        f"url: 'file://{repository}', packages: {{branches: [main], service_account: trainer}}}}}}}}\n"
    )
    world.rules(COMMITTED)
    update = {"ref": f"refs/heads/{branch}", "old": "0" * 40, "new": sha, "paths": [], "message": "", "author": "Ada"}
    body = {"version": 1, "delivery": f"{sha[:20]}-{branch}", "repository": "acme/Income Model"}
    body |= {"sent_at": "2026-11-21T07:00:00Z", "updates": [update]}
    receive(
        world.app, Delivery(source="code", headers={}, body=json.dumps(body).encode(), received_at=world.clock.now())
    )
    world.answer()


def test_a_package_of_the_pushed_commit_is_uploaded_under_the_repositorys_name_with_its_account(
    world: World, repository: Path
) -> None:
    sha = git("rev-parse", "HEAD", cwd=repository)
    push(world, repository, sha)
    (job,) = world.backend.jobs
    assert job.package is not None
    assert job.package.upload
    assert (job.pipeline.name, job.pipeline.version) == ("acme-income-model.Train Me", sha)
    assert job.service_account == "trainer"


def test_a_commit_on_no_listed_branch_runs_nothing(world: World, repository: Path) -> None:
    git("checkout", "--quiet", "-b", "feature", cwd=repository)
    git("commit", "--quiet", "--allow-empty", "-m", "mine", cwd=repository)
    push(world, repository, git("rev-parse", "HEAD", cwd=repository), "feature")
    assert world.backend.jobs == []
    (decision,) = world.store.decisions.list(Query())
    assert decision.reason == Reason.PIPELINE_UNKNOWN
    assert "main" in decision.detail


# Ends, and what comes after.


def test_a_failed_run_is_taken_up_again_by_its_backend(world: World, drop: Drop) -> None:
    drop()
    world.answer()
    world.backend.end(State.FAILED, "no memory")
    world.later(2)
    retry(world.app, only_run(world))
    assert world.backend.retried == ["id-0"]
    assert (only_run(world).state, only_run(world).reason) == (State.RUNNING, Reason.RETRIED)
    world.backend.end()
    world.later(2)
    assert only_run(world).state is State.SUCCEEDED


def test_a_run_is_not_taken_up_again_while_another_holds_its_lock(world: World, drop: Drop) -> None:
    world.rules(RULES + "    limits: {lock: one}\n")
    drop()
    world.answer()
    world.backend.end(State.FAILED, "no memory")
    world.later(2)
    drop(key="incoming/b.csv", sequencer="187A5B1C2D3E4F51", request="R2")
    world.answer()
    with pytest.raises(Permanent, match="its lock one is taken"):
        retry(world.app, runs(world)[0])
    assert world.backend.retried == []


def test_a_new_generation_is_one_however_often_it_is_asked_for(world: World, drop: Drop) -> None:
    drop()
    world.answer()
    world.backend.end(State.FAILED, "no memory")
    world.later(2)
    first = only_run(world)
    assert anew(world.app, first).id == anew(world.app, first).id
    world.answer()
    old, new = runs(world)
    assert (new.generation, new.retry_of, new.as_of) == (1, old.run_key, old.as_of)
    assert new.run_key != old.run_key
    assert [key for key, _ in world.backend.created] == [old.run_key, new.run_key]
    (edge,) = [one for one in world.store.lineage.into(f"run:{new.run_key}") if one.relation == "retried as"]
    assert edge.source == f"run:{old.run_key}"
    assert twice(world) == []


def test_a_run_that_was_told_to_end_and_fails_is_cancelled(world: World, drop: Drop) -> None:
    drop()
    world.answer()
    world.later(1)
    run = only_run(world)
    world.store.runs.ask_to_cancel(run.run_key, world.clock.now())
    world.backend.cancel = world.backend.cancelled.append  # type: ignore[method-assign]
    for _ in range(20):
        world.later(2)
    assert world.backend.cancelled == ["id-0"], "it is not told again every two seconds"
    world.later(61)
    assert world.backend.cancelled == ["id-0", "id-0"]
    world.backend.end(State.FAILED, "terminated")
    world.later(2)
    assert (only_run(world).state, only_run(world).reason) == (State.CANCELLED, Reason.CANCEL_ASKED)


def test_a_run_over_its_time_limit_is_ended_and_says_so(world: World, drop: Drop) -> None:
    world.rules(RULES.replace("      pipeline: scoring@v1\n", "      pipeline: scoring@v1\n      time_limit: 5m\n"))
    drop()
    world.answer()
    world.later(1)
    for _ in range(4):
        world.later(130)
    assert (only_run(world).state, only_run(world).reason) == (State.CANCELLED, Reason.TIME_LIMIT)


def test_a_run_that_its_backend_never_ends_lets_go_of_its_lock(world: World, drop: Drop) -> None:
    limited = RULES.replace("      pipeline: scoring@v1\n", "      pipeline: scoring@v1\n      time_limit: 5m\n")
    world.rules(limited + "    limits: {lock: one}\n")
    world.backend.cancel = str  # type: ignore[method-assign,assignment] - takes it and does nothing
    drop()
    drop(key="incoming/b.csv", sequencer="187A5B1C2D3E4F51", request="R2")
    world.answer()
    for seconds in (400, 1, 1, 601):  # seen to run, asked to end, told, given up
        world.later(seconds)
    world.answer()
    first, second = runs(world)
    assert (first.state, first.reason) == (State.FAILED, Reason.NOT_ENDED)
    assert second.backend_id
    world.later(2)
    assert runs(world)[0].state is State.FAILED, "that its backend still shows it does not revive it"


def test_a_cancelled_run_that_its_backend_never_ends_is_given_up_too(world: World, drop: Drop) -> None:
    world.backend.cancel = str  # type: ignore[method-assign,assignment] - takes it and does nothing
    drop()
    world.answer()
    world.later(1)
    world.store.runs.ask_to_cancel(only_run(world).run_key, world.clock.now())
    world.later(1)
    world.later(590)
    assert only_run(world).state is State.RUNNING
    world.later(20)
    assert (only_run(world).state, only_run(world).reason) == (State.CANCELLED, Reason.NOT_ENDED)


def test_a_run_that_was_retried_in_its_backends_own_pages_runs_again(world: World, drop: Drop) -> None:
    drop()
    world.answer()
    world.backend.end(State.FAILED, "no memory")
    world.later(2)
    assert only_run(world).recorded_at is not None
    world.backend.seen["id-0"] = Observed(state=State.RUNNING)
    world.later(2)
    again = only_run(world)
    assert (again.state, again.error, again.ended_at, again.recorded_at) == (State.RUNNING, "", None, None)
    world.backend.end()
    world.later(2)
    assert only_run(world).state is State.SUCCEEDED
    assert reasons(world, again.run_key)[-2:] == [Reason.REVIVED, Reason.OBSERVED_STATE]
    assert twice(world) == []


def test_a_run_that_is_pending_again_after_a_retry_holds_up_no_other(world: World, drop: Drop) -> None:
    drop()
    drop(key="incoming/b.csv", sequencer="187A5B1C2D3E4F51", request="R2")
    world.answer()
    world.backend.seen["id-0"] = Observed(state=State.FAILED, error="no memory")
    world.later(2)
    retry(world.app, runs(world)[0])
    world.backend.seen["id-0"] = Observed(state=State.SUBMITTED)
    world.backend.seen["id-1"] = Observed(state=State.SUCCEEDED)
    world.later(2)
    assert [run.state for run in runs(world)] == [State.RUNNING, State.SUCCEEDED]


def test_a_run_that_a_person_cloned_in_kfps_pages_is_nobodys_double(world: World, drop: Drop) -> None:
    drop()
    world.answer()
    key = only_run(world).run_key
    world.backend.created.append((key, "id-9"))
    world.backend.seen["id-9"] = Observed(state=State.RUNNING)
    world.backend.names[key] = f"Clone of {only_run(world).display_name}"
    world.later(2)
    world.later(2)
    assert world.backend.cancelled == []
    assert twice(world) == []


def test_a_backend_that_is_not_in_the_settings_any_more_costs_no_run(world: World, drop: Drop) -> None:
    drop()
    key = only_run_after_decision(world).run_key
    gone = replace(world.app, backends={})
    submit(gone, key)
    assert only_run(world).state is State.READY
    assert "no backend is named default" in only_run(world).detail
    world.clock.forward(31)
    submit(world.app, key)
    assert only_run(world).state is State.SUBMITTED
    world.store.runs.ask_to_cancel(key, world.clock.now())
    world.clock.forward(601)
    watch(gone)
    assert (only_run(world).state, only_run(world).reason) == (State.CANCELLED, Reason.NOT_ENDED)


def test_a_search_that_fails_is_no_proof_that_nothing_was_sent(world: World, drop: Drop) -> None:
    drop()
    world.backend.after_create = Temporary("time-out")
    world.answer()
    world.backend.away = True
    for _ in range(5):
        world.later(61)
        world.answer()
    assert only_run(world).state is State.SUBMITTING
    world.backend.away = False
    world.later(61)
    assert [one for one, _ in world.backend.created] == [only_run(world).run_key]
    assert only_run(world).backend_id == "id-0"


def test_blocked_runs_do_not_stand_before_others(world: World, drop: Drop) -> None:
    drop(eTag="first", request="R")
    world.backend.after_create = Temporary("time-out")
    world.backend.stale = True
    world.answer()
    for number in range(210):
        drop(eTag=f"e{number}", sequencer=f"187A5B1C2D3E5{number:03X}", request=f"R{number}")
    drop(key="incoming/other.csv", sequencer="187A5B1C2D3E6000", request="RX")
    while world.bell.rung:
        task, key = world.bell.rung.pop(0)
        if task != "runs.submit":  # those rings are lost
            step(world.app, task, key)
    world.clock.forward(20)
    sweep(world.app)
    assert runs_on(world, "other.csv")[0].state is State.SUBMITTED


def runs_on(world: World, name: str) -> list[RunRecord]:
    return [run for run in world.store.runs.list(Query(limit=500)) if run.subject.endswith(name)]


def test_what_a_foreign_pipeline_made_is_lineage_too(world: World, drop: Drop) -> None:
    drop()
    world.answer()
    world.registry.traced = True
    outputs = {
        "artifacts": {"train/model": {"uri": "s3://mlpipeline/x/model"}, "train/log": {"uri": "file:///tmp/x"}},
        "images": ["registry.example/train@sha256:abc"],
    }
    world.backend.seen["id-0"] = Observed(state=State.SUCCEEDED, outputs=outputs)
    world.later(2)
    node = f"run:{only_run(world).run_key}"
    wrote = {edge.target for edge in world.store.lineage.out_of(node) if edge.relation == "wrote"}
    assert wrote == {"s3://mlpipeline/x/model", "mlflow-run:r1"}
    assert "image:registry.example/train@sha256:abc" in {edge.source for edge in world.store.lineage.into(node)}
