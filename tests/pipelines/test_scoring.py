"""Only complete rows are scored, only by a model that fits, and the output file is the same each time."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.components.run_inference.model import Model, check_columns, differences, load_model, positive_class
from pipelines.components.run_inference.score import SCHEMA, predict
from pipelines.components.write_data.write import Made, compose
from pipelines.errors import PipelineError

ROWS = pa.table(
    {
        "line": pa.array([2, 3, 4, 6], pa.int64()),
        "user_id": pa.array([7, 8, None, 7], pa.int64()),
        "status": ["ok", "unknown", "invalid", "ok"],
        "age": pa.array([60, None, None, 20], pa.int64()),
    }
)


def by_age(frame: Any) -> np.ndarray:
    return np.asarray(frame["age"]) / 100


def test_only_ok_rows_get_a_prediction_and_all_rows_stay() -> None:
    scored = predict(Model({"age": "long"}, by_age, {}), ROWS)
    assert scored.schema == SCHEMA
    assert scored["line"].to_pylist() == [2, 3, 4, 6]
    assert scored["Predicted_Income_Class"].to_pylist() == [">50K", None, None, "<=50K"]
    assert scored["probability"].to_pylist() == [0.6, None, None, 0.2]


def test_nobody_to_score_is_an_answer_too() -> None:
    scored = predict(Model({"age": "long"}, by_age, {}), ROWS.slice(1, 2))
    assert scored["probability"].to_pylist() == [None, None]


def test_a_probability_that_is_no_number_ends_the_run() -> None:
    with pytest.raises(PipelineError, match="no finite probability"):
        predict(Model({"age": "long"}, lambda frame: np.full(len(frame), np.nan), {}), ROWS)


@pytest.mark.parametrize(
    ("model", "features", "complaint"),
    [
        ({"age": "long"}, {"age": "int64"}, ""),
        ({"age": "double"}, {"age": "int32"}, ""),
        ({"b": "string", "a": "long"}, {"a": "int64", "b": "string"}, ""),
        ({"age": "long", "sex": "string"}, {"age": "int64"}, "the model needs sex (string), which feature_list lacks"),
        ({"age": "long"}, {"age": "int64", "sex": "string"}, "feature_list has sex, which the model does not know"),
        ({"age": "long"}, {"age": "double"}, "age is double in Feast but the model was trained on long"),
        ({"age": "long"}, {"age": "string"}, "age is string in Feast but the model was trained on long"),
    ],
)
def test_a_model_must_fit_the_features(model: dict[str, str], features: dict[str, str], complaint: str) -> None:
    if not complaint:
        check_columns(model, features, "models:/m/1")
        return
    with pytest.raises(PipelineError) as caught:
        check_columns(model, features, "models:/m/1")
    assert complaint in str(caught.value)


def test_all_that_does_not_fit_is_said_at_once() -> None:
    with pytest.raises(PipelineError, match=r"needs a .* has c, .* b is"):
        check_columns({"a": "long", "b": "long"}, {"b": "string", "c": "long"}, "models:/m/1")


def test_an_unknown_model_type_is_refused() -> None:
    with pytest.raises(PipelineError, match="model_type 'torch' is not known; it can be: sklearn"):
        load_model("m", 1, "torch")


def test_a_model_that_is_not_registered_is_named(mlflow_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_uri)
    with pytest.raises(PipelineError, match="models:/nobody-knows-it/7 cannot be loaded"):
        load_model("nobody-knows-it", 7, "sklearn")


@pytest.mark.parametrize("classes", [["<=50K"], [0, 1], ["<=50K", ">50K", "?"], ["high", "low"]])
def test_other_classes_than_ours_are_refused(classes: list[Any]) -> None:
    with pytest.raises(PipelineError, match="this pipeline needs <=50K and >50K"):
        positive_class(classes, "models:/m/1")


def test_another_library_version_is_noted() -> None:
    found = differences({"python": "3.8.1", "scikit-learn": "0.1"})
    assert found["scikit-learn"]["model"] == "0.1"
    assert found.keys() == {"python", "scikit-learn"}


def test_the_same_predictions_give_the_same_bytes_whatever_their_row_groups(tmp_path: Path) -> None:
    scored = predict(Model({"age": "long"}, by_age, {}), ROWS)
    made = Made("k1", "income-classifier", 3, "2026-11-01T12:00:00Z")
    for name, size in (("a", 1), ("b", 100)):
        pq.write_table(scored, tmp_path / name, row_group_size=size)
        counts = compose(tmp_path / name, tmp_path / f"{name}.out", made)
        assert counts == {"ok": 2, "unknown": 1, "expired": 0, "invalid": 1}
    assert (tmp_path / "a.out").read_bytes() == (tmp_path / "b.out").read_bytes()
    metadata = pq.read_schema(tmp_path / "a.out").metadata
    assert metadata[b"kfp_triggers.run_key"] == b"k1"
    assert metadata[b"kfp_triggers.model"] == b"models:/income-classifier/3"
