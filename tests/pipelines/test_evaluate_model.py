"""How good a model is: figures, curves, the report that people read, and the reference for its scorings."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.linear_model import LogisticRegression

from pipelines.components.evaluate_model.evaluate import Evaluation, evaluate, leave
from pipelines.components.evaluate_model.importance import importance
from pipelines.components.evaluate_model.quality import POINTS, figures_of, measure, slice_figures, thinned
from pipelines.components.prepare_data.about import labelled
from pipelines.components.train_model.fit import fit, save
from pipelines.components.train_model.repository import Repository
from pipelines.errors import PipelineError
from pipelines.report import Step
from pipelines.sketch import Sketch

ID = 7_654_000  # the first one; in no text that comes out
TOLD = {"model": "income-classifier", "commit": "c0ffee"}
ABOUT = {"start": "2026-01-01T00:00:00+00:00", "end": "2026-02-01T00:00:00+00:00", "features": "income_v1"}


def people(rows: int, seed: int) -> pa.Table:
    """Income depends on age, half a bit on the job, and not at all on the shoe."""
    random = np.random.default_rng(seed)
    age, job = random.integers(20, 60, rows), random.choice(["Craft", "Sales"], rows)
    rich = random.random(rows) < 1 / (1 + np.exp(-(age - 40) / 6 - (job == "Sales")))
    return pa.table(
        {
            "user_id": np.arange(ID, ID + rows),
            "event_timestamp": [datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=n) for n in range(rows)],
            "income": np.where(rich, ">50K", "<=50K"),
            "age": age,
            "job": job,
            "shoe": random.normal(42, 2, rows),
        }
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, tuple[str, str]]:
    """A saved model, and the training and test set that it goes with."""
    folder = tmp_path_factory.mktemp("trained")
    train, test = people(1500, 1), people(600, 2)
    paths = str(folder / "train"), str(folder / "test")
    for path, table in zip(paths, (train, test), strict=True):
        pq.write_table(labelled(table, ABOUT), path)
    code = Repository(folder / "code", {}, LogisticRegression(), (), ())
    code.folder.mkdir()
    features = train.drop_columns(["user_id", "event_timestamp", "income"])
    fitted = fit(code.estimator, features, train.column("income").to_pandas(), code)
    save(fitted, features.schema, code, folder / "model")
    return str(folder / "model"), paths


@pytest.fixture(scope="module")
def found(trained: tuple[str, tuple[str, str]]) -> Evaluation:
    return evaluate(*trained, ["job", "age"], Step("income-training.evaluate_model", "k", ""))


def test_a_saved_model_is_evaluated_whole_and_by_slice(trained: tuple[str, tuple[str, str]]) -> None:
    step = Step("income-training.evaluate_model", "k", "")
    found = evaluate(*trained, ["job=Sales", "age"], step)
    assert 0.75 < found.figures["auc"] < 0.95
    assert found.figures["test_rows"] == 600
    assert [name.partition("=")[0] for name in found.slices] == ["job", "age", "age", "age", "age"]
    assert sum(int(part["rows"] or 0) for name, part in found.slices.items() if name.startswith("age")) == 600
    assert step.facts["metrics"] == found.figures
    json.dumps(step.facts, allow_nan=False)


def test_the_reference_is_of_the_training_features_and_the_scores_of_the_test_set(
    found: Evaluation, trained: tuple[str, tuple[str, str]]
) -> None:
    assert {name: column["rows"] for name, column in found.reference.items()} == {
        "age": 1500, "job": 1500, "shoe": 1500, "(score)": 600
    }  # fmt: skip
    sketch = Sketch(json.loads(json.dumps(found.reference)))
    sketch.add(pq.read_table(trained[1][1]), found.probability)


def test_the_report_stands_alone_holds_no_id_and_is_the_same_bytes_again(found: Evaluation, tmp_path: Path) -> None:
    pages = []
    for name in ("one", "two"):
        step = Step("income-training.evaluate_model", "k", (tmp_path / name).as_uri())
        leave(found, TOLD, (str(tmp_path / "page"), str(tmp_path / "reference.json")), step)
        pages.append((tmp_path / name / "evaluation.html").read_text())
    page = pages[0]
    assert pages[1] == page == (tmp_path / "page").read_text()
    assert not [one for one in ("<script", "<link", "<img", "url(http", "src=") if one in page]
    assert not any(str(ID + n) in page for n in range(600))
    assert [
        title for title in ("c0ffee", "ROC", "Calibration", "Confusion", "job=Sales", "shoe") if title not in page
    ] == []
    assert page.count("<svg") == 4
    assert json.loads((tmp_path / "reference.json").read_text()) == found.reference


def test_what_the_page_is_told_is_text(found: Evaluation, tmp_path: Path) -> None:
    paths = str(tmp_path / "page"), str(tmp_path / "reference.json")
    leave(found, {"model": "<b>bold", "commit": "<i>"}, paths, Step("a.b", "k", ""))
    assert not [one for one in ("<b>bold", "<i>") if one in (tmp_path / "page").read_text()]


def test_a_model_that_was_trained_on_other_features_is_refused(
    trained: tuple[str, tuple[str, str]], tmp_path: Path
) -> None:
    table = pq.read_table(trained[1][1])
    pq.write_table(table.rename_columns([*table.column_names[:-1], "hat"]), tmp_path / "test")
    with pytest.raises(PipelineError, match=r"the model needs shoe \(double\).*feature_list has hat"):
        evaluate(trained[0], (trained[1][0], str(tmp_path / "test")), [], Step("a.b", "k", ""))


@pytest.mark.parametrize(
    ("figure", "expected"),
    [
        ("accuracy", 4 / 6), ("balanced_accuracy", 0.625), ("auc", 7 / 8), ("average_precision", 5 / 6), ("f1", 0.5),
        ("brier", (0.01 + 0.36 + 0.49 + 0.04 + 0.01) / 6), ("test_rows", 6),
    ],
)  # fmt: skip
def test_a_figure_is_what_a_person_would_reckon(figure: str, expected: float) -> None:
    positive = np.array([True, True, False, False, False, False])
    probability = np.array([0.9, 0.4, 0.7, 0.2, 0.1, 0.0])
    assert figures_of(positive, probability)[figure] == pytest.approx(expected)


@pytest.mark.parametrize(("shift", "expected"), [(0.0, 0.0), (0.2, 0.2)])
def test_the_calibration_error_is_by_how_much_the_probabilities_are_off(shift: float, expected: float) -> None:
    said = np.repeat([0.1, 0.3, 0.5, 0.7], 1000)
    true = np.concatenate([np.arange(1000) < 1000 * share for share in (0.1, 0.3, 0.5, 0.7)])
    order = np.random.default_rng(1).permutation(4000)
    found = figures_of(true[order], said[order] + shift)["calibration_error"]
    assert found == pytest.approx(expected, abs=0.02)


def test_a_curve_is_short_finite_and_keeps_its_ends() -> None:
    random = np.random.default_rng(1)
    positive = random.random(5000) < 0.3
    quality = measure(positive, np.clip(random.normal(0.4, 0.2, 5000) + 0.2 * positive, 0, 1))
    false, true, thresholds = quality.roc
    assert len(false) == len(true) == len(thresholds) == POINTS
    assert (false[0], true[0], false[-1], true[-1]) == (0.0, 0.0, 1.0, 1.0)
    assert max(thresholds) <= 1.0
    assert 0.7 < quality.figures["auc"] < 0.8
    assert sum(sum(row) for row in quality.confusion) == 5000


def test_an_infinite_threshold_is_clipped() -> None:
    assert thinned(np.array([0.0, 1.0]), np.array([0.0, 1.0]), np.array([np.inf, 0.2]))[2] == [1.0, 0.2]


@pytest.mark.parametrize(
    ("positive", "probability", "message"),
    [([True, True], [0.1, 0.2], "one class only"), ([True, False], [0.1, np.nan], "no probability for 1 rows")],
)
def test_what_cannot_be_measured_is_refused(positive: list[bool], probability: list[float], message: str) -> None:
    with pytest.raises(PipelineError, match=message):
        measure(np.array(positive), np.array(probability))


@pytest.mark.parametrize(("rows", "missing"), [(0, {"share", "said", "accuracy", "auc"}), (3, {"auc"})])
def test_a_slice_without_both_classes_says_what_it_can(rows: int, missing: set[str]) -> None:
    figures = slice_figures(np.ones(rows, bool), np.full(rows, 0.9))
    assert {name for name, value in figures.items() if value is None} == missing


def test_a_column_that_says_nothing_is_the_least_important(found: Evaluation) -> None:
    assert next(iter(found.importance)) == "age"
    assert abs(found.importance["shoe"]) < 0.01 < found.importance["job"] < found.importance["age"]


def test_the_importance_of_very_many_features_is_left_out() -> None:
    asked: list[Any] = []
    frame = pd.DataFrame({f"c{number}": [0, 1] for number in range(101)})
    assert importance(asked.append, frame, np.array([True, False])) == {}
    assert asked == []
