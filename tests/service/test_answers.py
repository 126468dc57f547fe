"""What a code host is told of a run that a push made: the real store, real HTTP, and a server that plays the hosts."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from codehosts import REPOSITORY, Host, hosted
from fakes import FakeRegistry
from world import World

from service.flow.answer import TRIES, answer_due
from service.ledger import Arrival
from service.lifecycle import State
from service.ports import ModelVersion
from service.records import Answer, AnswerState, Query, RunRecord
from triggers.event import Delivery, Event, Reading
from triggers.sourcefile import load_sources
from triggers.yamlfile import Problems

SHA = "7f3c1d0a9b8e5f6423c1d0a9b8e5f6423c1d0a9b"
RULES = """
apiVersion: kfp-triggers/v1
rules:
  retrain:
    trigger: {source: code, event: git.push, branch: main}
    run: {pipeline: scoring@v1, params: {uri: "${event.sha}"}}
    answer: {%s}
"""
SOURCES = """
apiVersion: kfp-triggers/v1
sources:
  code:
    type: %s
    secrets: [{file: uploads.token}]
    repositories: {acme/model: {url: "https://git/acme/model"}}
    %s
"""
Push = Callable[..., None]
PROMOTION = {
    "model": "income-classifier",
    "alias": "champion",
    "candidate": 4,
    "champion": 3,
    "verdict": "refuse",
    "metric": "accuracy",
    "margin": 0.0,
    "candidate_value": 0.853,
    "champion_value": 0.841,
    "rows": 1000,
    "slices": [{"slice": "sex=Female", "rows": 400, "candidate": 0.8, "champion": 0.9, "worse": True}],
    "reasons": ["worse on sex=Female"],
}


@pytest.fixture(params=["github", "gitlab", "gitea"])
def host(request: pytest.FixtureRequest) -> Iterator[Host]:
    with hosted(request.param) as one:
        yield one


@pytest.fixture
def github() -> Iterator[Host]:
    with hosted("github") as one:
        yield one


def told_by(world: World, host: Host, answer: str = "status: true, comment: true") -> None:
    """The rule answers to this host."""
    (world.home / "host.token").write_text("the-token-of-the-host\n")
    kind = "git" if host.kind == "gitea" else host.kind
    answers = f"answers: {{api: '{host.address}', token: {{file: host.token}}, kind: {host.kind}}}"
    (world.home / "sources.yaml").write_text(SOURCES % (kind, answers))
    world.rules(RULES % answer)


def push(world: World, sha: str = SHA, repository: str = REPOSITORY) -> RunRecord:
    data = {"sha": sha, "repository": repository, "clone_url": "", "branch": "main", "paths": []}
    item = Event(type="git.push", subject="acme/model@main", time=world.clock.now(), data=data, identity=sha)
    delivery = Delivery(source="code", headers={}, body=b"{}", received_at=world.clock.now())
    arrival = Arrival(delivery=delivery, headers={}, reading=Reading(transport_key=sha, events=(item,)))
    for event_id in world.app.accept(arrival).event_ids:
        world.bell.ring("events.decide", event_id)
    world.answer()
    return run_of(world)


def run_of(world: World) -> RunRecord:
    return world.store.runs.list(Query())[0]


def ends(world: World, *, state: State = State.SUCCEEDED, error: str = "", **facts: Any) -> None:
    """The run ends and has reported this."""
    run = run_of(world)
    report = {"run": {"facets": {"kfpTriggers_report": facts}}}
    world.objects.found[f"{run.report_uri}/evaluate_model.json"] = json.dumps(report).encode()
    world.backend.end(state, error)
    world.later(1)


def answer_of(world: World) -> Answer:
    found = world.store.answers.of_run(run_of(world).run_key)
    assert found is not None
    return found


class Registry(FakeRegistry):
    """One that has the candidate of the run."""

    def tagged(self, run_key: str) -> list[ModelVersion]:  # type: ignore[override]
        tags = {"run_key": run_key}
        return [ModelVersion(name="income-classifier", alias="", version=4, run_id="r", source="", tags=tags)]

    def aliases(self, name: str) -> dict[str, int]:
        return {"champion": 3}


def until_done(world: World, tries: int = 6) -> None:
    for _ in range(tries):
        world.clock.forward(5)
        answer_due(world.app)


def test_a_push_is_answered_with_a_status_and_one_comment(world: World, host: Host) -> None:
    told_by(world, host)
    world.app = replace(world.app, registry=Registry())
    push(world)
    answer_due(world.app)
    assert (host.latest()["state"], host.latest()["context"]) == ("pending", "kfp-triggers/retrain")
    assert host.comments == []
    ends(world, metrics={"accuracy": 0.853, "auc": 0.91}, promotion=PROMOTION)
    until_done(world)
    assert answer_of(world).state is AnswerState.DONE
    assert host.latest()["state"] == "success"
    assert host.latest()["description"] == "accuracy 0.853 (+0.012 vs v3): not promoted"
    (comment,) = host.comments
    assert comment["body"].splitlines()[0] == f"<!-- kfp-triggers {run_of(world).run_key} -->"
    assert "| accuracy | 0.853 | 0.841 | +0.012 |" in comment["body"]
    assert "| accuracy where sex=Female (worse) | 0.8 | 0.9 | -0.1 |" in comment["body"]
    assert "| auc | 0.91 |  |  |" in comment["body"]
    assert "https://mlflow.example/#/models/income-classifier/versions/4" in comment["body"]
    asked = len(host.asked)
    until_done(world)
    assert len(host.asked) == asked


@pytest.mark.parametrize(
    ("state", "github_says"),
    [(State.SUCCEEDED, "success"), (State.FAILED, "failure"), (State.CANCELLED, "error"), (State.GONE, "error")],
)
def test_a_status_says_how_the_run_ended(world: World, github: Host, state: State, github_says: str) -> None:
    told_by(world, github)
    push(world)
    ends(world, state=state, error="train_model: out of memory")
    until_done(world)
    assert github.latest()["state"] == github_says
    assert ("out of memory" in github.comments[0]["body"]) == (state is not State.SUCCEEDED)


def test_whoever_was_killed_in_the_middle_is_followed_by_another_and_there_is_one_comment(
    world: World, host: Host
) -> None:
    from service.flow import answertext

    told_by(world, host)
    push(world)
    ends(world)
    host.comments += [{"id": 1 + n, "body": f"somebody else's {n}"} for n in range(150)]
    host.comments.append({"id": 900, "body": f"> <!-- kfp-triggers {run_of(world).run_key} --> a quotation"})
    before = len(host.comments)
    source = world.app.rules.now().sources["code"]
    marker = f"<!-- kfp-triggers {run_of(world).run_key} -->"
    # The first one made the comment and was killed before it could note that.
    world.app.code.comment(source, REPOSITORY, SHA, marker, "the first one's")
    until_done(world)
    assert len(host.comments) == before + 1
    assert host.comments[-1]["body"] == f"{marker}\n{answertext.comment(world.app, run_of(world))}"


def test_a_status_that_was_told_twice_is_one(world: World, host: Host) -> None:
    told_by(world, host, "status: true, comment: false")
    push(world)
    answer_due(world.app)
    with world.store.database.write() as connection:
        connection.exec_driver_sql("update answer set told = ''")
    answer_due(world.app)
    assert answer_of(world).told == "pending"
    assert host.latest()["state"] == "pending"


@pytest.mark.parametrize("status", [500, 502, 429, 401, 403])
def test_a_host_that_does_not_take_it_now_is_asked_again(world: World, github: Host, status: int) -> None:
    told_by(world, github)
    push(world)
    github.fail = [status] * 2
    for _ in range(5):
        world.clock.forward(90)
        answer_due(world.app)
    assert github.latest()["state"] == "pending"


def test_a_host_says_when_to_ask_again(world: World, github: Host) -> None:
    told_by(world, github)
    push(world)
    github.fail, github.headers = [403], {"Retry-After": "600"}
    answer_due(world.app)
    world.clock.forward(590)
    answer_due(world.app)
    assert github.statuses == []
    world.clock.forward(20)
    answer_due(world.app)
    assert github.latest()["state"] == "pending"


def test_after_some_tries_it_is_given_up_with_a_word_and_the_run_is_none_the_worse(
    world: World, github: Host, caplog: pytest.LogCaptureFixture
) -> None:
    told_by(world, github)
    push(world)
    github.fail = [500] * 100
    for _ in range(TRIES + 2):
        world.clock.forward(1000)
        answer_due(world.app)
    answer = answer_of(world)
    assert (answer.state, len(github.asked)) == (AnswerState.GIVEN_UP, TRIES)
    assert answer.detail == f"after {TRIES} tries: github answers 500: not now"
    ends(world)
    assert run_of(world).state is State.SUCCEEDED


def test_what_a_host_refuses_for_good_is_given_up_at_once(world: World, github: Host) -> None:
    told_by(world, github)
    push(world)
    github.fail = [422]
    answer_due(world.app)
    assert (answer_of(world).state, answer_of(world).detail) == (
        AnswerState.GIVEN_UP, "github answers 422: not now",
    )  # fmt: skip


def test_nobody_is_told_without_a_token_in_the_sources(world: World, github: Host) -> None:
    told_by(world, github)
    (world.home / "sources.yaml").write_text(SOURCES % ("github", "auth: null"))
    run = push(world)
    answer_due(world.app)
    assert world.store.answers.of_run(run.run_key) is None
    assert github.asked == []


def test_nobody_is_told_where_the_rule_does_not_ask_for_it(world: World, github: Host) -> None:
    told_by(world, github)
    world.rules((RULES % "status: true").replace("    answer: {status: true}\n", ""))
    run = push(world)
    assert world.store.answers.of_run(run.run_key) is None


def test_what_a_person_fires_on_a_repository_of_his_own_reaches_no_host(world: World, github: Host) -> None:
    told_by(world, github)
    run = push(world, repository="../../user")
    assert world.store.answers.of_run(run.run_key) is None


def test_the_token_goes_to_the_configured_host_alone(world: World, github: Host) -> None:
    """A redirect would take it along."""
    told_by(world, github)
    with hosted("github") as other:
        push(world)
        github.fail, github.headers = [302], {"Location": f"{other.address}/stolen"}
        answer_due(world.app)
        assert other.asked == []
    assert answer_of(world).state is AnswerState.GIVEN_UP


def test_an_error_never_repeats_the_token(world: World, github: Host) -> None:
    told_by(world, github)
    (world.home / "host.token").write_text("another-token-of-somebody\n")
    push(world)
    answer_due(world.app)
    assert "github answers 401" in answer_of(world).detail
    assert "another-token-of-somebody" not in answer_of(world).detail


def test_gitea_without_a_pull_request_gets_the_status_alone(world: World) -> None:
    with hosted("gitea") as gitea:
        gitea.pull = 0
        told_by(world, gitea)
        push(world)
        ends(world)
        until_done(world)
        assert (gitea.latest()["state"], gitea.comments) == ("success", [])
        assert answer_of(world).state is AnswerState.DONE


def test_a_report_cannot_write_markup_into_the_comment(world: World, github: Host) -> None:
    told_by(world, github)
    world.app = replace(world.app, registry=Registry())
    push(world)
    bad = "](https://evil.example) @everyone <img src=x> | a\n# title"
    ends(world, promotion=PROMOTION | {"metric": bad, "reasons": [bad]}, metrics={bad: 1.0, "auc": float("1e9")})
    until_done(world)
    body = github.comments[0]["body"]
    assert "](https://evil" not in body
    assert "@everyone" not in body
    assert re.search(r"(?<!\\)[<|]", body.split("\n| |")[0].split("-->")[1].replace("<sub>", "")) is None
    assert "\n# title" not in body


def test_a_run_that_is_taken_up_again_is_answered_again(world: World, github: Host) -> None:
    from service.flow.retry import retry

    told_by(world, github)
    push(world)
    ends(world, state=State.FAILED, error="no luck")
    until_done(world)
    retry(world.app, run_of(world))
    answer_due(world.app)
    assert github.latest()["state"] == "pending"
    ends(world)
    until_done(world)
    assert [one["state"] for one in github.statuses] == ["failure", "pending", "success"]
    assert len(github.comments) == 1


@pytest.mark.parametrize(
    ("answers", "complaint"),
    [
        ("answers: {token: {env: T}}", "sources.code.answers.api: is required"),
        ("answers: {api: 'ftp://x', token: {env: T}}", "must be the address of the API"),
        ("answers: {api: 'https://u:p@x', token: {env: T}}", "without a password"),
        ("answers: {api: 'https://x', token: ghp_abcdefgh}", "a secret is never written into this file"),
        ("answers: {api: 'https://x'}", "sources.code.answers.token: is required"),
    ],
)
def test_a_mistake_in_the_sources_is_said_without_the_secret(answers: str, complaint: str) -> None:
    with pytest.raises(Problems) as caught:
        load_sources(SOURCES % ("github", answers), "sources.yaml")
    assert complaint in str(caught.value)
    assert "ghp_" not in str(caught.value)


def test_a_plain_git_source_says_whose_api_it_is() -> None:
    with pytest.raises(Problems, match="needs a `kind`"):
        load_sources(SOURCES % ("git", "answers: {api: 'https://x', token: {env: T}}"), "sources.yaml")


def test_a_text_of_a_run_is_no_command_to_the_host(world: World) -> None:
    with hosted("gitlab") as gitlab:
        told_by(world, gitlab)
        push(world)
        ends(world, state=State.FAILED, error="  /tag v9")
        until_done(world)
        (comment,) = gitlab.comments
    assert "tag v9" in comment["body"]
    assert re.search(r"^\s*/", comment["body"], re.MULTILINE) is None


def test_a_host_that_answers_with_no_list_is_given_up(
    world: World, github: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    told_by(world, github, "status: false, comment: true")
    push(world)
    monkeypatch.setattr(github, "_comments", lambda *_: (200, {"message": "welcome"}), raising=False)
    ends(world)
    until_done(world)
    assert (answer_of(world).state, "no list" in answer_of(world).detail) == (AnswerState.GIVEN_UP, True)


def test_an_answer_that_nobody_thought_of_is_given_up_after_some_tries(world: World) -> None:
    with hosted("gitea") as gitea:
        gitea.pull = "seven"  # type: ignore[assignment]
        told_by(world, gitea, "status: false, comment: true")
        push(world)
        ends(world)
        for _ in range(TRIES + 2):
            world.clock.forward(1000)
            answer_due(world.app)
    answer = answer_of(world)
    assert (answer.state, answer.detail) == (
        AnswerState.GIVEN_UP, f"after {TRIES} tries: it could not be told: ValueError",
    )  # fmt: skip
