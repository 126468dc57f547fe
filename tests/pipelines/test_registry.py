"""One version per run key, whatever happens twice; a champion only where there is none."""

import json
import secrets
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from mlflow import MlflowClient
from sklearn.linear_model import LogisticRegression

from pipelines.components.register_model.candidate import validated
from pipelines.components.register_model.registry import Candidate, _make, _settle, register, versions_of
from pipelines.components.train_model.fit import fit, save
from pipelines.components.train_model.repository import Repository
from pipelines.errors import PipelineError
from pipelines.registered_model import load_model
from pipelines.report import Step


@pytest.fixture
def candidate(mlflow_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Candidate:
    """A small model of a name that is not registered yet."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_uri)
    features = pa.table({"age": list(range(20, 60))})
    fitted = fit(LogisticRegression(), features, np.array(["<=50K", ">50K"] * 20))
    save(fitted, features.schema, Repository(tmp_path, {"C": 1.0}, fitted, (), ()), tmp_path / "saved")
    tags = {"run_key": "k1", "repository": "/srv/m.git", "commit": "abc", "reason": "", "feature_service": "income_v1"}
    (tmp_path / "reference").write_text(json.dumps({"age": {"kind": "number"}}))
    (tmp_path / "report").write_text("<p>good</p>")
    files = {"model/reference.json": tmp_path / "reference", "evaluation.html": tmp_path / "report"}
    return Candidate(tmp_path / "saved", f"m-{secrets.token_hex(4)}", {"auc": 0.9}, tags, files)


def again(candidate: Candidate, run_key: str) -> Candidate:
    return replace(candidate, tags=candidate.tags | {"run_key": run_key})


def test_a_repeated_run_adopts_the_version_it_made(candidate: Candidate) -> None:
    steps = [Step("income-training.register_model", "k1", "") for _ in range(2)]
    assert [register(candidate, step) for step in steps] == [1, 1]
    assert [step.facts["adopted"] for step in steps] == [False, True]
    assert steps[1].outputs[0].name == f"{candidate.name}/1"


def test_the_first_version_is_champion_and_the_second_is_not(candidate: Candidate) -> None:
    assert [register(again(candidate, key), Step("p.c", key, "")) for key in ("k1", "k2")] == [1, 2]
    assert MlflowClient().get_model_version_by_alias(candidate.name, "champion").version == "1"


@pytest.mark.parametrize("promotion", ["approve", "never"])
def test_a_model_whose_rule_does_not_promote_gets_no_champion(promotion: str, candidate: Candidate) -> None:
    assert register(candidate, Step("p.c", "k1", ""), promotion) == 1
    assert MlflowClient().get_registered_model(candidate.name).aliases == {}


def test_a_version_carries_its_tags_its_metrics_and_a_loadable_model(candidate: Candidate) -> None:
    register(candidate, Step("p.c", "k1", ""))
    version = MlflowClient().get_model_version(candidate.name, "1")
    run = mlflow.get_run(str(version.run_id))
    assert candidate.tags.items() <= version.tags.items()
    assert (run.data.metrics, run.data.params) == ({"auc": 0.9}, {"C": "1.0"})
    loaded = load_model(candidate.name, 1, "sklearn")
    assert loaded.columns == {"age": "long"}
    assert loaded.probability(pd.DataFrame({"age": [30]})).shape == (1,)


def test_what_scorings_are_held_to_travels_with_the_model_and_the_pages_stay_in_the_run(candidate: Candidate) -> None:
    register(candidate, Step("p.c", "k1", ""))
    assert load_model(candidate.name, 1).reference == {"age": {"kind": "number"}}
    run = str(MlflowClient().get_model_version(candidate.name, "1").run_id)
    assert mlflow.artifacts.load_text(f"runs:/{run}/evaluation.html") == "<p>good</p>"


@pytest.mark.parametrize(
    ("result", "success", "expectations"),
    [
        ({"suite": "s3://b/k", "version": "v", "expectations": 7.0, "failed": 0.0, "success": True}, "true", "7"),
        ({"suite": "s3://b/k", "version": "v", "expectations": 7, "failed": 1, "success": False}, "false", "7"),
        ({"suite": "", "version": "", "expectations": 0, "failed": 0, "success": True}, "", "0"),
    ],
)
def test_only_data_that_was_looked_at_counts_as_good(result: dict[str, Any], success: str, expectations: str) -> None:
    tags = validated(result)
    assert (tags["validation_success"], tags["validation_expectations"]) == (success, expectations)


def test_of_two_executions_that_race_one_version_stays(candidate: Candidate) -> None:
    made = [_make(candidate), _make(candidate)]
    assert [_settle(candidate, number) for number in reversed(made)] == [1, 1]
    assert versions_of(candidate.name, "k1") == [1]


@pytest.mark.parametrize("run_key", ["", "a'b"])
def test_a_run_key_that_could_not_be_found_again_is_refused(run_key: str, candidate: Candidate) -> None:
    with pytest.raises(PipelineError, match="run_key must be a token"):
        register(again(candidate, run_key), Step("p.c", run_key, ""))
