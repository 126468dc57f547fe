"""run_inference: only complete rows are scored, only by a model that fits, and what it can't do it says."""

import json
import platform
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import boto3
import mlflow
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from mlflow.models import ModelSignature
from mlflow.store.artifact import s3_artifact_repo
from mlflow.types import ColSpec, Schema
from sklearn.linear_model import LogisticRegression

from pipelines.components.run_inference.score import FEATURES, MODEL, Paths, Wanted, feature_names, predict, score
from pipelines.errors import PipelineError
from pipelines.model_environment import differences
from pipelines.model_flavors import positive_class
from pipelines.registered_model import Model, check_columns, load_model
from pipelines.registry_errors import Unreachable
from pipelines.report import Step
from pipelines.sketch import SCORE, Sketch, reference_of

ROWS = pa.table(
    {
        "line": pa.array([2, 3, 4, 6], pa.int64()),
        "user_id": pa.array([7, 8, None, 7], pa.int64()),
        "status": ["ok", "unknown", "invalid", "ok"],
        "campaign": ["a", "b", "", None],
        "age": pa.array([60, None, None, 20], pa.int64()),
    }
).replace_schema_metadata({FEATURES: '["age"]'})
NAME = "scoring-tests"


def by_age(frame: Any) -> np.ndarray:
    return np.asarray(frame["age"]) / 100


def test_only_ok_rows_get_a_prediction_and_all_rows_stay() -> None:
    scored = predict(Model({"age": "long"}, by_age, {}), ROWS)
    assert scored.column_names == ["line", "user_id", "Predicted_Income_Class", "probability", "status"]
    assert scored["line"].to_pylist() == [2, 3, 4, 6]
    assert scored["Predicted_Income_Class"].to_pylist() == [">50K", None, None, "<=50K"]
    assert scored["probability"].to_pylist() == [0.6, None, None, 0.2]


def test_nobody_to_score_is_an_answer_too() -> None:
    scored = predict(Model({"age": "long"}, by_age, {}), ROWS.slice(1, 2))
    assert scored["probability"].to_pylist() == [None, None]


def test_columns_that_pass_by_stay_as_they_are() -> None:
    scored = predict(Model({"age": "long"}, by_age, {}), ROWS, ["campaign", "age"])
    assert scored.column_names[-3:] == ["status", "campaign", "age"]
    assert scored["campaign"].to_pylist() == ["a", "b", "", None]
    assert scored["age"].to_pylist() == [60, None, None, 20]


def test_half_a_chance_is_the_lower_class() -> None:
    scored = predict(Model({"age": "long"}, lambda frame: np.full(len(frame), 0.5), {}), ROWS)
    assert scored["Predicted_Income_Class"].to_pylist() == ["<=50K", None, None, "<=50K"]


@pytest.mark.parametrize("said", [np.nan, np.inf, -0.1, 1.5])
def test_what_is_no_probability_ends_the_run(said: float) -> None:
    with pytest.raises(PipelineError, match="no probability between 0 and 1"):
        predict(Model({"age": "long"}, lambda frame: np.full(len(frame), said), {}), ROWS)


@pytest.mark.parametrize(
    ("model", "features", "complaint"),
    [
        ({"age": "long"}, {"age": "int64"}, ""),
        ({"age": "double"}, {"age": "int32"}, ""),
        ({"age": "float"}, {"age": "float"}, ""),
        ({"b": "string", "a": "long"}, {"a": "int64", "b": "string"}, ""),
        ({"age": "long", "sex": "string"}, {"age": "int64"}, "the model needs sex (string), which feature_list lacks"),
        ({"age": "long"}, {"age": "int64", "sex": "string"}, "feature_list has sex, which the model does not know"),
        ({"age": "long"}, {"age": "double"}, "age is double in Feast but the model was trained on long"),
        ({"age": "long"}, {"age": "string"}, "age is string in Feast but the model was trained on long"),
        ({"age": "float"}, {"age": "double"}, "age is double in Feast but the model was trained on float"),
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


def test_a_kept_column_is_no_feature_and_without_a_list_every_column_is_one() -> None:
    assert feature_names(ROWS.schema) == ["age"]
    assert feature_names(ROWS.schema.remove_metadata()) == ["campaign", "age"]


@pytest.mark.parametrize("classes", [["<=50K"], [0, 1], ["<=50K", ">50K", "?"], ["high", "low"]])
def test_other_classes_than_ours_are_refused(classes: list[Any]) -> None:
    with pytest.raises(PipelineError, match="this pipeline needs <=50K and >50K"):
        positive_class(classes, "models:/m/1")


def test_another_library_version_is_noted(caplog: pytest.LogCaptureFixture) -> None:
    found = differences({"python": platform.python_version(), "scikit-learn": "0.1", "nowhere": "2"})
    assert found["scikit-learn"]["model"] == "0.1"
    assert found["nowhere"] == {"model": "2", "here": "none"}
    assert found.keys() == {"scikit-learn", "nowhere"}
    assert "model_environment_differs library=scikit-learn model=0.1" in caplog.text


@pytest.fixture(scope="module")
def registered(minio: Any, mlflow_uri: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two versions of a model whose artifacts its readers fetch from the bucket themselves. The second has a reference,
    and an older scikit-learn."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (minio.environment | {"MLFLOW_TRACKING_URI": mlflow_uri}).items():
            patch.setenv(name, value)
        minio.client.make_bucket("models")
        experiment = mlflow.create_experiment(NAME, artifact_location="s3://models/scoring")
        for version in (1, 2):
            folder = tmp_path_factory.mktemp("model") / "saved"
            _save(folder)
            if version == 2:
                ages = pa.table({"age": list(range(20, 60))})
                (folder / "reference.json").write_text(json.dumps(reference_of(ages, np.linspace(0, 1, 40))))
                document = (folder / "MLmodel").read_text()
                (folder / "MLmodel").write_text(document.replace("sklearn_version: ", "sklearn_version: 0."))
            with mlflow.start_run(experiment_id=experiment) as run:
                mlflow.log_artifacts(str(folder), "model")
            mlflow.register_model(f"runs:/{run.info.run_id}/model", NAME)
        mlflow.MlflowClient().set_registered_model_alias(NAME, "champion", "2")
    return NAME


def _save(folder: Path) -> None:
    people = pd.DataFrame({"age": np.arange(20, 60)})
    mlflow.sklearn.save_model(
        LogisticRegression().fit(people, ["<=50K"] * 20 + [">50K"] * 20),
        str(folder),
        signature=ModelSignature(inputs=Schema([ColSpec("long", "age")])),
        pip_requirements=["mlflow"],
    )


@pytest.fixture
def registry(storage_env: Any, mlflow_uri: str, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """This process asks the registry as a step does."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_uri)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    return monkeypatch


def executed(folder: Path, wanted: Wanted, rows: pa.Table = ROWS) -> tuple[pa.Table, Any, Mapping[str, Any]]:
    paths = Paths(*(str(folder / name) for name in ("features", "predictions", "sketch")))
    pq.write_table(rows, paths.features, row_group_size=2)
    step = Step("income-batch-inference.run_inference", "k", "")
    score(wanted, paths, step)
    return pq.read_table(paths.predictions), json.loads(Path(paths.sketch).read_text()), step.facts


def test_an_alias_is_followed_to_a_version_that_is_told_everywhere(
    registered: str, registry: Any, tmp_path: Path
) -> None:
    found, sketch, facts = executed(tmp_path, Wanted(registered, 0, "champion"))
    assert found.schema.metadata[MODEL] == b"models:/scoring-tests/2"
    assert (facts["model"], facts["model_alias"]) == ("models:/scoring-tests/2", "champion")
    assert (facts["rows"], facts["scored"], facts["classes"]) == (4, 2, {"<=50K": 1, ">50K": 1})
    assert facts["environment"].keys() == {"scikit-learn"}
    counts = Sketch.read(sketch).counts
    assert (counts["age"].sum(), counts[SCORE].sum()) == (2, 2)


def test_a_model_without_a_reference_leaves_an_empty_sketch(registered: str, registry: Any, tmp_path: Path) -> None:
    found, sketch, facts = executed(tmp_path, Wanted(registered, 1, keep_features=True))
    assert found.column_names[-2:] == ["campaign", "age"]
    assert (sketch, facts["model_type"]) == ({}, "sklearn")


def test_a_kept_column_may_not_be_called_like_ours(registered: str, registry: Any, tmp_path: Path) -> None:
    rows = ROWS.rename_columns(["line", "user_id", "status", "probability", "age"])
    rows = rows.replace_schema_metadata(ROWS.schema.metadata)
    with pytest.raises(PipelineError, match="the output has columns of its own called probability"):
        executed(tmp_path, Wanted(registered, 1), rows)


def test_features_of_another_type_end_the_run_before_any_row(registered: str, registry: Any, tmp_path: Path) -> None:
    rows = ROWS.set_column(4, "age", pa.array(["60", None, None, "20"])).replace_schema_metadata(ROWS.schema.metadata)
    with pytest.raises(PipelineError, match="age is string in Feast but the model was trained on long"):
        executed(tmp_path, Wanted(registered, 1), rows)


def test_an_unknown_model_type_is_refused() -> None:
    with pytest.raises(PipelineError, match="model_type 'torch' is not known; it can be: sklearn, xgboost, tensorflow"):
        load_model("m", 1, "torch")


@pytest.mark.parametrize(("name", "version"), [("nobody-knows-it", 7), (NAME, 99)])
def test_a_model_that_is_not_registered_is_named(registered: str, registry: Any, name: str, version: int) -> None:
    with pytest.raises(PipelineError, match=f"there is no models:/{name}/{version} in the registry"):
        load_model(name, version)


def test_a_registry_that_does_not_answer_is_told_without_its_address(registry: Any) -> None:
    registry.setenv("MLFLOW_TRACKING_URI", "http://someone:hunter2@127.0.0.1:9")
    with pytest.raises(Unreachable, match="the registry behind MLFLOW_TRACKING_URI cannot be reached") as caught:
        load_model("m", 1)
    assert "hunter2" not in str(caught.value)


def test_a_run_that_was_given_no_registry_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(PipelineError, match="MLFLOW_TRACKING_URI is not set"):
        load_model("m", 1)


@pytest.fixture
def closed_door() -> Iterator[str]:
    """An MLflow that lets nobody in."""

    class Refuse(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(401)

        do_POST = do_GET  # noqa: N815 - http.server's names

        def log_message(self, *_: Any) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Refuse) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_registry_that_refuses_says_which_variables_to_check(registry: Any, closed_door: str) -> None:
    registry.setenv("MLFLOW_TRACKING_URI", closed_door)
    with pytest.raises(Unreachable, match="check MLFLOW_TRACKING_USERNAME and _PASSWORD, or MLFLOW_TRACKING_TOKEN"):
        load_model("m", 1)


@pytest.fixture
def new_client(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A step is a process of its own; here MLflow and boto3 remember the credentials of the tests before."""
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    s3_artifact_repo._cached_get_s3_client.cache_clear()
    yield
    s3_artifact_repo._cached_get_s3_client.cache_clear()


@pytest.mark.parametrize("variable", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_credentials_that_cannot_read_the_artifacts_are_named(
    registered: str, registry: Any, new_client: None, variable: str
) -> None:
    registry.setenv(variable, "wrong")
    message = f"the artifacts of models:/{NAME}/1 were not read: this step's AWS_ACCESS_KEY_ID .* are refused"
    with pytest.raises(Unreachable, match=message):
        load_model(NAME, 1)


def test_a_silent_store_is_no_model_without_files(registered: str, registry: Any, new_client: None) -> None:
    registry.setenv("AWS_MAX_ATTEMPTS", "1")
    for variable in ("AWS_ENDPOINT_URL", "MLFLOW_S3_ENDPOINT_URL"):
        registry.setenv(variable, "http://127.0.0.1:9")
    with pytest.raises(Unreachable, match=f"the artifacts of models:/{NAME}/1 were not read"):
        load_model(NAME, 1)


def test_a_model_without_files_is_no_silent_store(registered: str, registry: Any, new_client: None) -> None:
    mlflow.register_model("s3://models/nothing/is/here", "hollow")
    with pytest.raises(PipelineError) as caught:
        load_model("hollow", 1)
    assert caught.type is PipelineError
