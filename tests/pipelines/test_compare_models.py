"""The gate: what lets a candidate pass, what does not, and what is said when there is nothing to compare with."""

import math
import secrets
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from mlflow import MlflowClient
from sklearn import metrics
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from pipelines.components.compare_models.account import account
from pipelines.components.compare_models.compare import Candidate, _against, compare
from pipelines.components.compare_models.compare import scored as scored_by
from pipelines.components.compare_models.figures import METRICS, Scored, interval, value
from pipelines.components.compare_models.rule import Rule
from pipelines.components.compare_models.verdict import Part, judge, judged_part
from pipelines.components.register_model import registry
from pipelines.components.train_model.fit import fit, save
from pipelines.components.train_model.repository import Repository
from pipelines.errors import PipelineError
from pipelines.registered_model import load_folder
from pipelines.registry_errors import Unreachable
from pipelines.report import Step

DRAW = np.random.default_rng(7)
TRUTH = DRAW.random(400) < 0.3
CLOSE = np.clip(TRUTH * 0.4 + DRAW.random(400) * 0.6, 0, 1).round(2)  # rounded: ties
GUESS = DRAW.random(400).round(2)
GOOD, BAD = Scored(TRUTH, CLOSE), Scored(TRUTH, GUESS)
SAME_ROWS = np.array([0, 2, 1, 1, 0, 3] * 66 + [1] * 4)

SKLEARN: dict[str, Callable[..., float]] = {
    "accuracy": lambda truth, p, w: metrics.accuracy_score(truth, p > 0.5, sample_weight=w),
    "balanced_accuracy": lambda truth, p, w: metrics.balanced_accuracy_score(truth, p > 0.5, sample_weight=w),
    "auc": lambda truth, p, w: metrics.roc_auc_score(truth, p, sample_weight=w),
    "average_precision": lambda truth, p, w: metrics.average_precision_score(truth, p, sample_weight=w),
    "f1": lambda truth, p, w: metrics.f1_score(truth, p > 0.5, sample_weight=w),
    "log_loss": lambda truth, p, w: metrics.log_loss(truth, p, sample_weight=w),
    "brier": lambda truth, p, w: metrics.brier_score_loss(truth, p, sample_weight=w),
}


@pytest.mark.parametrize("name", METRICS)
def test_a_figure_is_scikit_learn_s_with_ties_and_weights(name: str) -> None:
    for scored in (GOOD, BAD, Scored(TRUTH, np.where(TRUTH, 1.0, 0.25))):
        for weight in (np.ones(400), SAME_ROWS):
            expected = SKLEARN[name](scored.truth, scored.probability, weight)
            assert METRICS[name].of(scored, weight) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("name", ["balanced_accuracy", "auc", "average_precision"])
def test_a_figure_that_needs_both_classes_is_undefined_with_one(name: str) -> None:
    assert math.isnan(value(METRICS[name], Scored(np.zeros(9, bool), GUESS[:9])))


def test_a_better_model_is_surely_better_and_the_same_one_by_nothing() -> None:
    better = interval(METRICS["auc"], GOOD, BAD, margin=0.0)
    same = interval(METRICS["auc"], GOOD, GOOD, margin=0.0)
    assert better is not None
    assert same is not None
    assert 0 < better.low < value(METRICS["auc"], GOOD) - value(METRICS["auc"], BAD) < better.high
    assert (better.share, same.low, same.high) == (1.0, 0.0, 0.0)
    assert better == interval(METRICS["auc"], GOOD, BAD, margin=0.0)


def test_a_paired_interval_is_narrower_than_the_figure_s_own() -> None:
    """The same draws for both: what makes a draw easy is easy for both."""
    nearly = Scored(TRUTH, np.clip(CLOSE + 0.01 * GUESS, 0, 1))
    paired = interval(METRICS["auc"], nearly, GOOD, 0.0)
    alone = interval(METRICS["auc"], GOOD, Scored(TRUTH, np.full(400, 0.5)), 0.0)
    assert paired is not None
    assert alone is not None
    assert paired.high - paired.low < (alone.high - alone.low) / 3


@pytest.mark.parametrize(
    ("rule", "candidate", "champion", "word", "reason"),
    [
        pytest.param(Rule(), GOOD, BAD, "promote", "better by", id="better"),
        pytest.param(Rule(), GOOD, GOOD, "promote", "as good", id="as_good_with_no_margin"),
        pytest.param(Rule(), BAD, GOOD, "refuse", "worse by", id="worse"),
        pytest.param(Rule(margin=0.6), GOOD, BAD, "refuse", "it must be better by at least 0.6", id="below_the_margin"),
        pytest.param(Rule(margin=-1.0), BAD, GOOD, "promote", "worse by", id="a_negative_margin"),
        pytest.param(Rule("log_loss"), GOOD, BAD, "promote", "better by", id="less_is_better"),
        pytest.param(Rule("brier"), BAD, GOOD, "refuse", "worse by", id="less_is_better_and_it_is_more"),
        pytest.param(Rule(confidence=0.9), GOOD, BAD, "promote", "better by", id="sure_enough"),
        pytest.param(Rule(confidence=0.9, margin=0.0001), GOOD, GOOD, "refuse", "it must be 90.0%", id="not_sure"),
        pytest.param(Rule(mode="approve"), GOOD, BAD, "ask", "passed the gate", id="a_person_is_asked"),
        pytest.param(Rule(mode="approve"), BAD, GOOD, "refuse", "worse by", id="nobody_is_asked_about_a_worse_one"),
        pytest.param(Rule(mode="never"), GOOD, BAD, "never", "it would pass", id="never"),
        pytest.param(Rule(mode="never"), BAD, GOOD, "never", "it would be refused", id="never_and_worse"),
        pytest.param(
            Rule(), Scored(TRUTH[TRUTH], CLOSE[TRUTH]), Scored(TRUTH[TRUTH], GUESS[TRUTH]), "refuse", "one class only",
            id="undefined",
        ),
    ],
)  # fmt: skip
def test_a_verdict_follows_from_the_rule(
    rule: Rule, candidate: Scored, champion: Scored, word: str, reason: str
) -> None:
    verdict = judge(rule, candidate, champion, ())
    assert verdict.word == word
    assert reason in "; ".join(verdict.reasons)


def test_a_slice_that_gets_worse_refuses_a_candidate_that_is_better_in_all() -> None:
    mixed = Scored(TRUTH, np.where(np.arange(400) < 80, GUESS, CLOSE))
    few = Scored(TRUTH, np.where(np.arange(400) < 80, CLOSE, GUESS))
    first = np.arange(400) < 80
    part = judged_part(Rule(), "job=x", mixed.only(first), few.only(first))
    verdict = judge(Rule(), mixed, few, (part, judged_part(Rule(), "job=y", mixed.only(~first), few.only(~first))))
    assert [one.worse for one in verdict.parts] == [True, False]
    assert verdict.word == "refuse"
    assert verdict.reasons[0].startswith("job=x (80 rows): auc 0.")


@pytest.mark.parametrize("rows", [np.arange(29), np.flatnonzero(TRUTH)[:60]], ids=["few_rows", "one_class"])
def test_a_slice_that_says_nothing_is_shown_and_not_judged(rows: Any) -> None:
    part = judged_part(Rule(slice_margin=0.0), "job=x", BAD.only(rows), GOOD.only(rows))
    assert part == Part("job=x", len(rows), None, None, False)
    assert "not judged" in account(judge(Rule(), GOOD, BAD, (part,)), "m", (2, 1), Rule())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"metric": "acuracy"}, "metric 'acuracy' is not known; it can be: accuracy, balanced_accuracy, auc"),
        ({"mode": "yes"}, "promotion must be auto, approve, never, not 'yes'"),
        ({"margin": math.nan}, "margin must be a number"),
        ({"slice_margin": -0.1, "confidence": 1.0}, "slice_margin must be 0 or more; confidence must be 0"),
    ],
)
def test_a_rule_that_is_none_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(PipelineError, match=message):
        Rule(**arguments)


# With models: a hold-out where age tells nearly all, and a registry.

ROWS = 300
AGE = np.random.default_rng(3).integers(20, 60, ROWS)
INCOME = np.where(AGE + np.random.default_rng(4).normal(0, 6, ROWS) > 40, ">50K", "<=50K")
FEATURES = pa.table({"age": AGE, "job": ["a", "b", "c"] * 100})


@pytest.fixture
def hold_out(tmp_path: Path) -> str:
    table = FEATURES.append_column("user_id", pa.array(range(9_000_000, 9_000_000 + ROWS)))
    table = table.append_column("event_timestamp", pa.array(range(ROWS), pa.timestamp("us", "UTC")))
    pq.write_table(table.append_column("income", pa.array(INCOME)), tmp_path / "test.parquet")
    return str(tmp_path / "test.parquet")


@pytest.fixture
def model(mlflow_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Candidate]:
    """Registers a version of one model: good or a guess, of the given features. With `auto` the first is champion."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_uri)
    name = f"m-{secrets.token_hex(4)}"

    def make(good: bool, features: pa.Table = FEATURES, mode: str = "auto", made: Any = None, **more: str) -> Candidate:
        folder = tmp_path / secrets.token_hex(4)
        folder.mkdir()
        labels = INCOME if good else np.random.default_rng(5).permutation(INCOME)
        fitted = fit(made or LogisticRegression(), features, labels)
        save(fitted, features.schema, Repository(tmp_path, {}, fitted, (), ()), folder / "model")
        tags = {"run_key": folder.name, "repository": "/srv/m.git", "commit": "abc"} | more
        one = registry.Candidate(folder / "model", name, {}, tags)
        return Candidate(name, registry.register(one, Step("p.c", "k", ""), mode), str(folder / "model"))

    return make


def gate(candidate: Candidate, hold_out: str, folder: Path, rule: Rule | None = None) -> tuple[dict[str, Any], str]:
    """The verdict as the service reads it, and as people do."""
    step = Step("income-training.compare_models", "k", "")
    compare(candidate, hold_out, rule or Rule(), str(folder / "page.html"), step)
    return step.facts["promotion"], (folder / "page.html").read_text()


def test_a_better_candidate_is_promoted_over_the_champion_it_was_compared_with(
    model: Callable[..., Candidate], hold_out: str, tmp_path: Path
) -> None:
    model(good=False)
    verdict, page = gate(model(good=True), hold_out, tmp_path, Rule(slices=("job",), margin=0.01))
    assert (verdict["verdict"], verdict["candidate"], verdict["champion"]) == ("promote", 2, 1)
    assert verdict["candidate_value"] > 0.9 > verdict["champion_value"]
    assert [one["slice"] for one in verdict["slices"]] == ["job=a", "job=b", "job=c"]
    assert verdict["rows"] == ROWS
    assert "Promote." in page
    assert "9000" not in page + str(verdict)  # no id


def test_a_repeated_gate_says_the_same(model: Callable[..., Candidate], hold_out: str, tmp_path: Path) -> None:
    model(good=True)
    candidate = model(good=False)
    first, second = (gate(candidate, hold_out, tmp_path) for _ in range(2))
    assert first == second
    assert first[0]["verdict"] == "refuse"


@pytest.mark.parametrize(("mode", "word"), [("auto", "first"), ("approve", "ask"), ("never", "never")])
def test_without_a_champion_the_verdict_is_first_only_where_the_candidate_was_crowned(
    mode: str, word: str, model: Callable[..., Candidate], hold_out: str, tmp_path: Path
) -> None:
    candidate = model(good=True, mode=mode)
    assert ("champion" in MlflowClient().get_registered_model(candidate.name).aliases) == (word == "first")
    verdict, _ = gate(candidate, hold_out, tmp_path, Rule(mode=mode))
    assert (verdict["verdict"], verdict["champion"], verdict["champion_value"]) == (word, 0, None)


def test_a_champion_whose_alias_was_taken_away_meanwhile_is_a_person_s_to_name(
    model: Callable[..., Candidate], hold_out: str, tmp_path: Path
) -> None:
    candidate = model(good=True)
    MlflowClient().delete_registered_model_alias(candidate.name, "champion")
    assert gate(candidate, hold_out, tmp_path)[0]["verdict"] == "ask"


def moment(row: int) -> str:
    """The hold-out's so-and-so-many-th, from 0."""
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=row)).isoformat()


def test_a_champion_is_judged_only_on_what_came_after_its_training(
    model: Callable[..., Candidate], hold_out: str, tmp_path: Path
) -> None:
    model(good=True, trained_until=moment(99))
    candidate = model(good=True)
    verdict, _ = gate(candidate, hold_out, tmp_path, Rule(slices=("job",)))
    alone = pq.read_table(hold_out).slice(100)
    expected = value(METRICS["auc"], scored_by(load_folder(candidate.folder), alone, ""))
    assert (verdict["rows"], [one["rows"] for one in verdict["slices"]]) == (200, [66, 67, 67])
    assert verdict["candidate_value"] == verdict["champion_value"] == expected
    assert verdict["reasons"][-1].startswith("compared on what the champion was not fitted on: 200 of the hold-out's")


@pytest.mark.parametrize(
    ("until", "word", "rows", "reason"),
    [
        pytest.param(moment(-1), "promote", 300, "", id="trained_before_all"),
        pytest.param("", "promote", 300, "the champion has no tag trained_until", id="an_old_version"),
        pytest.param(moment(199), "promote", 100, "100 of the hold-out's 300", id="enough"),
        pytest.param(moment(200), "ask", 300, "only 99 of the hold-out's 300 rows are later than 1970", id="too_few"),
        pytest.param(moment(300), "ask", 300, "only 0 of the hold-out's 300 rows are later than 1970", id="none"),
        pytest.param("yesterday", "ask", 300, "trained_until is not an RFC 3339 time", id="no_moment"),
    ],
)
def test_rows_that_the_champion_was_fitted_on_decide_nothing(
    until: str, word: str, rows: int, reason: str, model: Callable[..., Candidate], hold_out: str, tmp_path: Path
) -> None:
    model(good=False, trained_until=until)
    verdict, _ = gate(model(good=True), hold_out, tmp_path)
    assert (verdict["verdict"], verdict["rows"]) == (word, rows)
    assert reason in verdict["reasons"][-1]


def test_new_rows_of_one_class_decide_nothing(model: Callable[..., Candidate], hold_out: str, tmp_path: Path) -> None:
    table = pq.read_table(hold_out)
    high = pa.array(np.where(np.arange(ROWS) < 100, INCOME, ">50K"))
    pq.write_table(table.set_column(table.column_names.index("income"), "income", high), hold_out)
    model(good=False, trained_until=moment(99))
    verdict, _ = gate(model(good=True), hold_out, tmp_path, Rule("accuracy"))
    assert verdict["verdict"] == "ask"
    assert "of both classes" in verdict["reasons"][0]


def test_a_champion_that_breaks_on_a_row_is_put_to_a_person_and_the_row_is_not_told(
    model: Callable[..., Candidate], hold_out: str, tmp_path: Path
) -> None:
    strict = make_pipeline(
        ColumnTransformer([("job", OneHotEncoder(handle_unknown="error"), ["job"])]), LogisticRegression()
    )
    taught = FEATURES.set_column(1, "job", pa.array(["a", "b", "b"] * 100))
    model(good=True, features=taught, made=strict)
    verdict, page = gate(model(good=True), hold_out, tmp_path)
    assert verdict["verdict"] == "ask"
    assert "/1 cannot score these rows: there is a word that it was not taught" in verdict["reasons"][0]
    assert "Found unknown categories" not in page  # scikit-learn's own text goes on with the words


def test_a_registry_that_does_not_answer_is_an_error_and_no_question(
    model: Callable[..., Candidate], hold_out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    candidate = model(good=True)
    table = pq.read_table(hold_out)
    ours = scored_by(load_folder(candidate.folder), table, "")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(Unreachable):
        _against(1, candidate.name, ours, table, Rule())


def test_a_champion_of_fewer_features_is_compared_with_on_its_own(
    model: Callable[..., Candidate], hold_out: str, tmp_path: Path
) -> None:
    model(good=True, features=FEATURES.select(["age"]))
    assert gate(model(good=False), hold_out, tmp_path)[0]["verdict"] == "refuse"


@pytest.mark.parametrize(("mode", "word"), [("auto", "ask"), ("approve", "ask"), ("never", "never")])
def test_a_champion_of_features_that_are_gone_is_put_to_a_person(
    mode: str, word: str, model: Callable[..., Candidate], hold_out: str, tmp_path: Path
) -> None:
    model(good=True, features=FEATURES.append_column("wage", FEATURES["age"]))
    verdict, _ = gate(model(good=True), hold_out, tmp_path, Rule(mode=mode))
    assert verdict["verdict"] == word
    assert "needs wage (long), which feature_list lacks" in verdict["reasons"][0]


def test_a_champion_whose_files_are_gone_is_put_to_a_person(
    model: Callable[..., Candidate], hold_out: str, tmp_path: Path, minio: Any
) -> None:
    champion = model(good=True)
    candidate = model(good=True)
    run = MlflowClient().get_model_version(champion.name, str(champion.version)).run_id
    for item in list(minio.client.list_objects("mlflow", recursive=True)):
        if f"/{run}/" in f"/{item.object_name}":
            minio.client.remove_object("mlflow", item.object_name)
    verdict, _ = gate(candidate, hold_out, tmp_path)
    assert verdict["verdict"] == "ask"
    assert "the champion cannot be compared with" in verdict["reasons"][0]


def test_slices_of_no_feature_end_the_step(model: Callable[..., Candidate], hold_out: str, tmp_path: Path) -> None:
    model(good=True)
    with pytest.raises(PipelineError, match="slices: 'user_id' is no feature"):
        gate(model(good=True), hold_out, tmp_path, Rule(slices=("user_id",)))
