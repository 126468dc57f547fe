"""A saved model → one version in MLflow's registry, per run key exactly one. Called by component.py.

KFP may execute a run twice. So the registry is asked by the tag `run_key` first; the tags are written with the
version and not after it; and of two that still race each other the lower number stays.
"""

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mlflow
from mlflow import MlflowClient

from pipelines.errors import PipelineError
from pipelines.registry_errors import registry
from pipelines.report import Step, commit, model_version

ALIAS = "champion"


@dataclass(frozen=True)
class Candidate:
    """What is to be registered: the saved model, its name, its figures, the tags that say where it comes from, and
    more files by the name that each gets in MLflow; those under `model/` travel with the model."""

    folder: Path
    name: str
    figures: dict[str, float]
    tags: dict[str, str]
    files: Mapping[str, Path] = field(default_factory=dict)

    @property
    def run_key(self) -> str:
        return self.tags["run_key"]


def register(candidate: Candidate, step: Step, promotion: str = "auto") -> int:
    """The version of this run key: found, or made. With `promotion` `auto` a model without a champion gets it as one;

    with `approve` and `never` no pipeline makes a champion, not the first one either.
    """
    if not candidate.run_key or "'" in candidate.run_key:
        raise PipelineError("run_key must be a token without quotes; without one a repeated run would register twice")
    with registry(f"models:/{candidate.name}"):
        versions = versions_of(candidate.name, candidate.run_key)
        adopted = bool(versions)
        version = versions[0] if versions else _settle(candidate, _make(candidate))
        if promotion == "auto":
            crown(candidate.name, version)
    step.inputs.append(commit(candidate.tags["repository"], candidate.tags["commit"]))
    step.outputs.append(model_version(candidate.name, version, origin(candidate.tags)))
    step.facts |= {"model": f"models:/{candidate.name}/{version}", "adopted": adopted, "metrics": candidate.figures}
    return version


def origin(tags: Mapping[str, str]) -> dict[str, str]:
    """What the lineage says of a version beside its code: data window, feature service, and who found the data good."""
    told = {"features": tags.get("feature_service", ""), "reason": tags.get("reason", "")}
    if "data_window_start" in tags:
        told["window"] = f"{tags['data_window_start']}/{tags['data_window_end']}"
    if suite := tags.get("validation_suite"):
        held = int(tags["validation_expectations"]) - int(tags["validation_failed"])
        told["validation"] = f"{held} of {tags['validation_expectations']} expectations of {suite}"
    return {name: text for name, text in told.items() if text}


def versions_of(name: str, run_key: str) -> list[int]:
    """The versions that a run made, the first one first."""
    found = MlflowClient().search_model_versions(f"name = '{name}' and tags.run_key = '{run_key}'")
    return sorted(int(version.version) for version in found)


def crown(name: str, version: int) -> None:
    """Makes the version champion if the model has none;

    replacing a champion is a promotion, which is not ours to make.
    """
    client = MlflowClient()
    if ALIAS not in client.get_registered_model(name).aliases:
        client.set_registered_model_alias(name, ALIAS, str(version))


def _make(candidate: Candidate) -> int:
    """Logs run and model, then registers it with all its tags in one call:

    a version without its run key can't be left behind.
    """
    mlflow.set_experiment(candidate.name)
    with mlflow.start_run(run_name=candidate.run_key, tags=candidate.tags) as run:
        mlflow.log_params((mlflow.models.Model.load(candidate.folder).metadata or {}).get("params", {}))
        mlflow.log_metrics(candidate.figures)
        mlflow.log_artifacts(str(candidate.folder), "model")
        _log_files(candidate.files)
    source = f"runs:/{run.info.run_id}/model"
    made: Any = mlflow.register_model(source, candidate.name, tags=candidate.tags)
    return int(made.version)


def _log_files(files: Mapping[str, Path]) -> None:
    """Laid out in a folder first: MLflow names a file as it is called here, and an artifact of KFP is just `report`."""
    with tempfile.TemporaryDirectory() as folder:
        for name, path in files.items():
            target = Path(folder, name)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
        mlflow.log_artifacts(folder)


def _settle(candidate: Candidate, made: int) -> int:
    first = versions_of(candidate.name, candidate.run_key)[0]
    if first != made:
        MlflowClient().delete_model_version(candidate.name, str(made))
    return first
