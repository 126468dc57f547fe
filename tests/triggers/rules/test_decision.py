"""What comes of one event and one rule: the outcome, its reason, and what would run."""

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from triggers.reason import Reason
from triggers.rules.decision import Decision, Facts, LookupProblem, Outcome, decide, lock_of, plan, run_key
from triggers.rules.gate import History
from triggers.rules.model import Candidate, GitHead, ModelAlias, ObjectRows, Rule, RuleSet
from triggers.schema import Inputs

NOW = datetime(2026, 11, 21, 10, 5, tzinfo=UTC)
LOOKUPS: Mapping[str, Any] = {
    "model": {"name": "income-classifier", "alias": "champion", "version": 7, "run_id": "r"},
    "ids": {"rows": 12},
    "code": {"url": "https://git.example/acme/income-model.git", "sha": "a" * 40},
}
RULE = """
apiVersion: kfp-triggers/v1
rules:
  r:
    trigger: {trigger}
    run: {run}
    {more}
"""
OBJECT = "{source: uploads, event: object.created}"
ALERT = "{source: drift, event: alert.firing}"
Make = Callable[..., Rule]
Candidates = Callable[..., Candidate]


@pytest.fixture(scope="session")
def rule(load: Callable[..., Any]) -> Make:
    def make(more: str = "", *, trigger: str = OBJECT, run: str = "{pipeline: every-type@v1}") -> Rule:
        made: Rule = load(RULE.format(trigger=trigger, run=run, more=more))[0].rules["r"]
        return made

    return make


@pytest.fixture(scope="session")
def put(declared: Mapping[str, Inputs]) -> Callable[..., Decision]:
    """Put a candidate to a rule; the facts are what a calm day gives, and what the test changes."""

    def decide_with(rule: Rule, candidate: Candidate, **changed: Any) -> Decision:
        history = {name: changed.pop(name) for name in list(changed) if name in History.__annotations__}
        facts: dict[str, Any] = {
            "lookups": {name: LOOKUPS[name] for name in rule.lookup},
            "history": History(**history),
            "inputs": declared[rule.run.pipeline],
            "report_uri": "s3://reports/x",
            "now": NOW,
        }
        return decide(rule, candidate, Facts(**(facts | changed)))

    return decide_with


def test_the_story_of_a_dropped_file(shipped: RuleSet, candidate: Candidates, put: Callable[..., Decision]) -> None:
    rule, dropped = shipped.rules["score-new-users"], candidate()
    assert plan(rule, dropped) == {
        "model": ModelAlias(name="income-classifier", alias="champion"),
        "ids": ObjectRows(uri="s3://user-ids/incoming/2026-11-21.csv", version_id="", at_most=5 << 30),
    }
    key = run_key("score-new-users", "01EVENT", 0)
    output = f"incoming/2026-11-21-v7-{key}.parquet"
    assert put(rule, dropped) == Decision(
        rule="score-new-users",
        rule_hash=rule.hash,
        outcome=Outcome.RUN,
        reason=Reason.MATCHED,
        detail="",
        run_key=key,
        as_of="2026-11-21T10:00:00.000000Z",
        params={
            "run_key": key,
            "report_uri": "s3://reports/x",
            "as_of": "2026-11-21T10:00:00.000000Z",
            "entity_df_bucket": "user-ids",
            "entity_df_filename": "incoming/2026-11-21.csv",
            "entity_df_version": "",
            "entity_df_etag": "d41d8cd98f00b204e9800998ecf8427e",
            "feature_store_bucket_name": "feature-store",
            "feature_store_config_file_name": "feature_store.yaml",
            "feature_list": ["income_v1"],
            "model_name": "income-classifier",
            "model_version": 7,
            "output_bucket": "predictions",
            "output_file_name": output,
        },
        reads=("s3://user-ids/incoming/2026-11-21.csv", "models:/income-classifier/7"),
        writes=(f"s3://predictions/{output}",),
        lock="scoring/user-ids",
        lock_max=4,
    )


def test_the_story_of_a_drift_alert(shipped: RuleSet, candidate: Candidates, put: Callable[..., Decision]) -> None:
    rule = shipped.rules["retrain-on-drift"]
    labels = {"alertname": "FeatureDrift", "model": "income-classifier", "feature": "age"}
    fired = candidate("alert.firing", labels=labels)
    assert plan(rule, fired)["code"] == GitHead(source="model-repo", repository="acme/income-model", branch="main")
    params = put(rule, fired).params
    assert params["reason"] == "drift of age"
    assert (params["labels_uri"], params["newest"]) == ("s3://labels/income/", 500_000)
    assert (params["repository"], params["revision"]) == (LOOKUPS["code"]["url"], "a" * 40)
    assert put(rule, candidate("alert.firing", labels={})).params["reason"] == "drift of unknown"


def test_a_rule_knows_when_it_last_succeeded(load: Callable[..., Any], candidate: Candidates, put: Any) -> None:
    text = "{pipeline: every-type@v1, params: {text: '${rule.last_success}'}}"
    trigger = "{source: uploads, event: object.created}"
    rule = load(f"apiVersion: kfp-triggers/v1\nrules:\n  one: {{trigger: {trigger}, run: {text}}}\n")[0].rules["one"]
    assert put(rule, candidate()).params["text"] == ""
    then = put(rule, candidate(), last_success=datetime(2026, 11, 1, tzinfo=UTC))
    assert then.params["text"] == "2026-11-01T00:00:00.000000Z"


def test_a_versioned_object_is_read_in_its_version(shipped: RuleSet, candidate: Candidates) -> None:
    asked = plan(shipped.rules["score-new-users"], candidate(version_id="v-1"))["ids"]
    assert isinstance(asked, ObjectRows)
    assert asked.version_id == "v-1"


def test_a_run_key_names_rule_event_and_generation() -> None:
    keys = {
        run_key("r", "e", 0),
        run_key("r", "e", 1),
        run_key("r", "f", 0),
        run_key("s", "e", 0),
        run_key("re", "", 0),
    }
    assert len(keys) == 5
    assert run_key("r", "e", 0) == run_key("r", "e", 0)
    assert all(re.fullmatch(r"[a-z2-7]{16}", key) for key in keys)


HOUR_AGO = NOW - timedelta(hours=1)
LIMITED = "limits: {lock: gpu, max: 2, when_busy: skip, cooldown: 6h}"


@pytest.mark.parametrize(
    ("more", "trigger", "facts", "outcome", "reason", "again"),
    [
        ("", OBJECT, {}, "run", Reason.MATCHED, None),
        ("mode: paused", OBJECT, {}, "wait", Reason.PAUSED, None),
        ("mode: paused", OBJECT, {"causes": ("r",)}, "wait", Reason.PAUSED, None),
        ("mode: observe", OBJECT, {}, "skip", Reason.OBSERVED, None),
        ("", OBJECT, {"causes": ("r",)}, "skip", Reason.LOOP, None),
        ("", OBJECT, {"causes": ("a", "r", "b")}, "skip", Reason.LOOP, None),
        ("", OBJECT, {"causes": ("a", "b", "c", "d", "e")}, "run", Reason.MATCHED, None),
        ("", OBJECT, {"causes": ("a", "b", "c", "d", "e", "f")}, "skip", Reason.LOOP, None),
        ("", ALERT, {"resolved": True}, "skip", Reason.RESOLVED, None),
        ("", OBJECT, {"inputs": None}, "wait", Reason.PIPELINE_UNAVAILABLE, NOW + timedelta(seconds=30)),
        ("", OBJECT, {"inputs": "no such package"}, "skip", Reason.PIPELINE_UNKNOWN, None),
        (LIMITED, OBJECT, {}, "run", Reason.MATCHED, None),
        (LIMITED, OBJECT, {"last_run_at": HOUR_AGO}, "skip", Reason.COOLDOWN, None),
        (LIMITED, OBJECT, {"last_run_at": NOW - timedelta(hours=6)}, "run", Reason.MATCHED, None),
        (LIMITED, ALERT, {"last_run_at": HOUR_AGO}, "wait", Reason.COOLDOWN, NOW + timedelta(hours=5)),
        (LIMITED, ALERT, {"last_run_at": HOUR_AGO, "resolved": True}, "skip", Reason.RESOLVED, None),
        (LIMITED, OBJECT, {"busy": 1}, "run", Reason.MATCHED, None),
        (LIMITED, OBJECT, {"busy": 2}, "skip", Reason.BUSY, None),
        (LIMITED, ALERT, {"busy": 2}, "wait", Reason.BUSY, NOW + timedelta(seconds=30)),
        ("limits: {lock: gpu, when_busy: wait}", OBJECT, {"busy": 9}, "run", Reason.MATCHED, None),
        ("limits: {lock: gpu, when_busy: wait}", ALERT, {"busy": 9}, "run", Reason.MATCHED, None),
        ("limits: {cooldown: 1h}", OBJECT, {"busy": 9}, "run", Reason.MATCHED, None),
    ],
)
def test_an_outcome_has_one_reason(
    more: str,
    trigger: str,
    facts: dict[str, Any],
    outcome: str,
    reason: Reason,
    again: datetime | None,
    rule: Make,
    candidate: Candidates,
    put: Callable[..., Decision],
) -> None:
    event = candidate("alert.firing" if trigger == ALERT else "object.created")
    found = put(rule(more, trigger=trigger), event, **facts)
    assert (found.outcome, found.reason, found.ask_again_at) == (outcome, reason, again)
    assert found.detail or found.outcome == "run"


@pytest.mark.parametrize(
    ("facts", "outcome", "reason"),
    [
        ({"last_run_at": HOUR_AGO, "busy": 2}, "run", Reason.REPLAYED),
        ({"causes": ("r",)}, "skip", Reason.LOOP),
        ({"inputs": "gone"}, "skip", Reason.PIPELINE_UNKNOWN),
    ],
)
def test_a_replay_passes_the_limits_and_nothing_else(
    facts: dict[str, Any], outcome: str, reason: Reason, rule: Make, candidate: Candidates, put: Callable[..., Decision]
) -> None:
    found = put(rule(LIMITED), candidate(generation=1), **facts)
    assert (found.outcome, found.reason) == (outcome, reason)
    assert found.run_key == run_key("r", "01EVENT", 1)
    assert found.as_of == "2026-11-21T10:00:00.000000Z"


def test_the_first_requirement_that_fails_gives_its_reason(
    rule: Make, candidate: Candidates, put: Callable[..., Decision]
) -> None:
    made = rule('require: [{expr: "event.size > 0", reason: empty}, {expr: "event.size < 10", reason: big}]')
    assert put(made, candidate(size=5)).outcome is Outcome.RUN
    for size, why in [(0, "empty"), (10, "big")]:
        found = put(made, candidate(size=size))
        assert (found.outcome, found.reason, found.detail) == (Outcome.SKIP, Reason.REQUIREMENT, why)


@pytest.mark.parametrize(
    ("problem", "outcome", "again"),
    [
        (LookupProblem(reason=Reason.LOOKUP_UNAVAILABLE, detail="no answer"), "wait", NOW + timedelta(seconds=30)),
        (
            LookupProblem(reason=Reason.LOOKUP_UNAVAILABLE, detail="no answer", delay=timedelta(minutes=5)),
            "wait",
            NOW + timedelta(minutes=5),
        ),
        (LookupProblem(reason=Reason.LOOKUP_FAILED, detail="no such alias"), "skip", None),
        (LookupProblem(reason=Reason.RULE_ERROR, detail="it failed"), "skip", None),
    ],
)
def test_a_lookup_that_gives_nothing_waits_or_ends(
    problem: LookupProblem,
    outcome: str,
    again: datetime | None,
    rule: Make,
    candidate: Candidates,
    put: Callable[..., Decision],
) -> None:
    made = rule("lookup: {model: {mlflow_model: m, alias: champion}}")
    found = put(made, candidate(), lookups={"model": problem})
    assert (found.outcome, found.reason, found.ask_again_at) == (outcome, problem.reason, again)
    assert found.detail == f"model: {problem.detail}"


@pytest.mark.parametrize(
    ("run", "data", "reason", "detail"),
    [
        ('{text: "${event.metadata.team}"}', {"metadata": {}}, Reason.RULE_ERROR, "there is no `team`"),
        ("{text: \"${event.key.split('/')[1]}\"}", {"key": "s3cret"}, Reason.RULE_ERROR, "an index is outside"),
        ('{count: "${int(event.stem)}"}', {"stem": "s3cret"}, Reason.RULE_ERROR, "`int` refuses"),
        ('{options: "${event.metadata}"}', {"metadata": {str(n): "" for n in range(1001)}}, Reason.RULE_ERROR, "1000"),
        ('{text: "${event.key}"}', {"key": "s3cret{{workflow.name}}"}, Reason.BAD_PARAMETER, "text holds `{{`"),
        ('{text: "${event.key}"}', {"key": "s3cret\U0001f600"}, Reason.BAD_PARAMETER, "text holds a 4-byte"),
        ('{text: "${event.key}"}', {"key": "s3cret" * 20_000}, Reason.BAD_PARAMETER, "text is longer than 64 KiB"),
        ('{text: "${event.key}"}', {"key": None}, Reason.BAD_PARAMETER, "text must be text (STRING), and is null"),
        ('{count: "${event.size}"}', {"size": 1 << 60}, Reason.BAD_PARAMETER, "beyond 2^53"),
        ('{count: "${event.size}"}', {"size": 1 << 70}, Reason.RULE_ERROR, "no 64-bit integer"),
        (
            "{as_of: \"${default(event.metadata, 'as-of', event.time)}\"}",
            {"metadata": {"as-of": "s3cret"}},
            Reason.BAD_PARAMETER,
            "as_of must be a time with its zone",
        ),
    ],
)
def test_what_fails_on_an_event_is_a_skip_that_does_not_repeat_the_event(
    run: str,
    data: dict[str, Any],
    reason: Reason,
    detail: str,
    rule: Make,
    candidate: Candidates,
    put: Callable[..., Decision],
) -> None:
    found = put(rule(run=f"{{pipeline: every-type@v1, params: {run}}}"), candidate(**data))
    assert (found.outcome, found.reason) == (Outcome.SKIP, reason)
    assert detail in found.detail
    assert "s3cret" not in found.detail


def test_a_field_that_the_rule_does_not_mention_may_be_of_any_size(
    rule: Make, candidate: Candidates, put: Callable[..., Decision]
) -> None:
    made = rule(run='{pipeline: every-type@v1, params: {count: "${event.size}"}}')
    found = put(made, candidate(metadata={str(n): "x" for n in range(5000)}))
    assert (found.outcome, found.params["count"]) == (Outcome.RUN, 1024)


def test_an_input_that_came_since_loading_is_missed(
    rule: Make, candidate: Candidates, put: Callable[..., Decision], declared: Mapping[str, Inputs]
) -> None:
    found = put(rule(), candidate(), inputs=declared["income-training@v1"])
    assert found.reason is Reason.BAD_PARAMETER
    assert "repository is missing" in found.detail


def test_reserved_parameters_are_passed_where_the_pipeline_declares_them(
    rule: Make, candidate: Candidates, put: Callable[..., Decision]
) -> None:
    made = rule(run='{pipeline: every-type@v1, params: {as_of: "2026-01-01T00:00:00Z"}}')
    found = put(made, candidate())
    assert (found.as_of, found.params) == ("2026-01-01T00:00:00Z", {"as_of": "2026-01-01T00:00:00Z"})
    assert put(rule(), candidate()).params == {"as_of": "2026-11-21T10:00:00.000000Z"}


def test_a_rule_that_observes_shows_what_would_run(
    rule: Make, candidate: Candidates, put: Callable[..., Decision]
) -> None:
    run = '{pipeline: every-type@v1, params: {count: "${event.size}"}, writes: ["s3://x/${run.key}"]}'
    found = put(rule("mode: observe", run=run), candidate())
    assert found.params["count"] == 1024
    assert found.writes == (f"s3://x/{found.run_key}",)


def test_a_paused_rule_looks_nothing_up(rule: Make, candidate: Candidates) -> None:
    lookup = "lookup: {model: {mlflow_model: m, alias: champion}}"
    assert plan(rule(lookup + "\n    mode: paused"), candidate()) == {}
    assert plan(rule(lookup), candidate()) == {"model": ModelAlias(name="m", alias="champion")}


def test_a_lookup_that_cannot_be_asked_for_is_handed_to_the_decision(rule: Make, candidate: Candidates) -> None:
    made = rule("lookup: {ids: {object_rows: \"s3://x/${event.metadata['team']}\"}}")
    found = plan(made, candidate(metadata={}))["ids"]
    assert isinstance(found, LookupProblem)
    assert found.reason is Reason.RULE_ERROR
    too_long = plan(made, candidate(metadata={str(n): "" for n in range(1001)}))["ids"]
    assert isinstance(too_long, LookupProblem)


def test_the_lock_is_known_before_any_lookup(rule: Make, candidate: Candidates) -> None:
    assert lock_of(rule(), candidate()) == ""
    made = rule('limits: {lock: "${rule.name}/${event.bucket}/${event.metadata.team}"}')
    assert lock_of(made, candidate()) == "r/user-ids/growth"
    assert lock_of(made, candidate(metadata={})) == ""
