"""The pipeline `income-training` through kfp.local: two commits' worth of a model, from the labels to the verdict."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient

from pipelines.sketch import SCORE

ROOT = Path(__file__).parents[2]
MODEL = "gated-classifier"
STEPS = [
    "checkout_code", "compare_models", "evaluate_model", "prepare_data", "register_model", "train_model",
    "validate_data",
]  # fmt: skip
SUITE = ROOT / "deploy/demo/suite.json"


@dataclass(frozen=True)
class Training:
    """A first training, and a second one that a person must approve."""

    first: Path
    second: Path
    params: dict[str, Any]


@pytest.fixture(scope="module")
def training(
    run: Callable[..., Any], feature_bucket: str, model_repository: Callable[..., tuple[str, str]], people: Any,
    minio: Any, tmp_path_factory: pytest.TempPathFactory,
) -> Training:  # fmt: skip
    minio.client.fput_object(feature_bucket, "suites/people.json", str(SUITE))
    files = {path.name: path.read_text() for path in (ROOT / "deploy/demo/model_repo/v1").iterdir() if path.is_file()}
    repository, revision = model_repository(files)
    params = {
        "repository": repository,
        "revision": revision,
        "as_of": people.now.isoformat(),
        "model_name": MODEL,
        "suite_uri": f"s3://{feature_bucket}/suites/people.json",
        "slices": ["workclass"],
        "reason": "push",
    }
    reports = [tmp_path_factory.mktemp(name) for name in ("first", "second")]
    for number, (folder, more) in enumerate(zip(reports, ({}, {"promotion": "approve"}), strict=True), 1):
        done = run("income-training", params | more | {"run_key": f"gate-{number}", "report_uri": folder.as_uri()})
        assert done.code == 0, done.log
    return Training(reports[0], reports[1], params)


def facts(folder: Path, step: str) -> dict[str, Any]:
    event = json.loads((folder / f"{step}.json").read_text())
    assert event["eventType"] == "COMPLETE"
    found: dict[str, Any] = event["run"]["facets"]["kfpTriggers_report"]
    return found


def test_every_step_reports_and_the_exit_task_has_nothing_to_say(training: Training) -> None:
    assert sorted(path.stem for path in training.first.glob("*.json")) == STEPS
    pages = sorted(path.name for path in training.first.glob("*.html"))
    assert pages == ["comparison.html", "evaluation.html", "validation.html"]


def test_a_version_says_where_it_comes_from_and_that_its_data_was_held_to_a_suite(
    training: Training, mlflow_uri: str
) -> None:
    tags = MlflowClient(mlflow_uri).get_model_version(MODEL, "1").tags
    validation = facts(training.first, "validate_data")["validation"]
    expected = len(json.loads(SUITE.read_text())["expectations"])
    assert (validation["expectations"], validation["failed"], validation["success"]) == (expected, 0, True)
    assert tags["validation_suite"] == training.params["suite_uri"]
    assert tags["validation_success"] == "true"
    assert (tags["validation_expectations"], tags["validation_failed"]) == (str(expected), "0")
    assert tags["training_rows"] == str(facts(training.first, "prepare_data")["train"]["rows"])
    assert (tags["commit"], tags["run_key"], tags["reason"]) == (training.params["revision"], "gate-1", "push")
    assert (tags["model_type"], tags["feature_service"]) == ("sklearn", "income_v1")
    assert tags["data_window_end"] == training.params["as_of"]
    assert tags["data_window_start"] < tags["trained_until"] < tags["data_window_end"]
    (made,) = json.loads((training.first / "register_model.json").read_text())["outputs"]
    about = {name: told for name, told in made["facets"]["kfpTriggers_about"].items() if not name.startswith("_")}
    assert about == {
        "window": f"{tags['data_window_start']}/{tags['data_window_end']}",
        "features": "income_v1",
        "validation": f"{expected} of {expected} expectations of {training.params['suite_uri']}",
        "reason": "push",
    }


def test_a_version_has_its_reference_beside_the_model_and_its_pages_in_the_run(
    training: Training, mlflow_uri: str, tmp_path: Path
) -> None:
    version = MlflowClient(mlflow_uri).get_model_version(MODEL, "1")
    artifacts = {one.path for one in MlflowClient(mlflow_uri).list_artifacts(str(version.run_id))}
    assert {"model", "evaluation.html", "validation.html"} <= artifacts
    mlflow.set_tracking_uri(mlflow_uri)
    uri = f"models:/{MODEL}/1"
    folder = mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=str(tmp_path))
    reference = json.loads(Path(folder, "reference.json").read_text())
    assert {"age", "workclass", SCORE} <= reference.keys()


def test_the_first_version_becomes_champion_and_the_second_waits_for_a_person(
    training: Training, mlflow_uri: str
) -> None:
    first, second = (facts(folder, "compare_models")["promotion"] for folder in (training.first, training.second))
    assert (first["verdict"], first["candidate"], first["champion"]) == ("first", 1, 0)
    assert (second["verdict"], second["candidate"], second["champion"], second["mode"]) == ("ask", 2, 1, "approve")
    assert second["candidate_value"] == second["champion_value"]  # the same commit on the same labels
    assert {one["slice"].partition("=")[0] for one in second["slices"]} == {"workclass"}
    assert not any(one["worse"] for one in second["slices"])
    assert MlflowClient(mlflow_uri).get_model_version_by_alias(MODEL, "champion").version == "1"
