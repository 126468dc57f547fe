"""A registered model, loaded and checked against the features before it scores anything. Called by score.py.

Loading a model runs its code: the registry must be trusted.
"""

import logging
import os
import platform
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException

from pipelines.errors import PipelineError

HIGH, LOW = ">50K", "<=50K"
log = logging.getLogger(__name__)

# Which Arrow types may stand for a type in a model's signature: the same, or one that becomes it without loss.
ACCEPTED = {
    "long": {"int64", "int32", "int16", "int8"},
    "integer": {"int32", "int16", "int8"},
    "double": {"double", "float", "int32", "int16", "int8"},
    "float": {"float"},
    "string": {"string", "large_string"},
    "boolean": {"bool"},
}


@dataclass(frozen=True)
class Model:
    """What scores: its columns with their types, in its own order, and P(>50K) of a frame of them."""

    columns: Mapping[str, str]
    probability: Callable[[pd.DataFrame], np.ndarray]
    environment: dict[str, dict[str, str]]


def load_model(name: str, version: int, model_type: str) -> Model:
    """`models:/name/version` as a scorer of the given type."""
    if model_type not in LOADERS:
        raise PipelineError(f"model_type {model_type!r} is not known; it can be: {', '.join(LOADERS)}")
    return LOADERS[model_type](f"models:/{name}/{version}")


def check_columns(model: Mapping[str, str], features: Mapping[str, str], uri: str) -> None:
    """The model's signature against the features at hand, by name and type. All differences at once."""
    problems = [
        f"the model needs {name} ({model[name]}), which feature_list lacks" for name in model if name not in features
    ]
    problems += [f"feature_list has {name}, which the model does not know" for name in features if name not in model]
    problems += [
        f"{name} is {features[name]} in Feast but the model was trained on {model[name]}"
        for name in model
        if name in features and features[name] not in ACCEPTED.get(model[name], {model[name]})
    ]
    if problems:
        raise PipelineError(f"{uri} does not fit the features: {'; '.join(problems)}")


def signature_of(info: Any, uri: str) -> dict[str, str]:
    """The input columns that the model was registered with, name → type."""
    if info.signature is None or info.signature.inputs is None or not info.signature.inputs.has_input_names():
        raise PipelineError(
            f"{uri} has no signature with column names; register it with one (mlflow.models.ModelSignature)"
        )
    return {column.name: column.type.name for column in info.signature.inputs.inputs}


def differences(recorded: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Versions the model was made with that are not the ones here; a difference is noted, it ends nothing."""
    here = {"python": platform.python_version(), "scikit-learn": installed("scikit-learn")}
    found = {
        name: {"model": recorded[name], "here": here[name]}
        for name in here
        if recorded.get(name, here[name]) != here[name]
    }
    for name, versions in found.items():
        log.warning("model_environment_differs library=%s model=%s here=%s", name, versions["model"], versions["here"])
    return found


def positive_class(classes: Any, uri: str) -> int:
    """Which column of predict_proba is `>50K`."""
    names = [str(name) for name in classes]
    if sorted(names) != [LOW, HIGH]:
        raise PipelineError(f"{uri} tells {', '.join(names[:5])} apart; this pipeline needs {LOW} and {HIGH}")
    return names.index(HIGH)


def _load_sklearn(uri: str) -> Model:
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # it fills the run's log
    with tempfile.TemporaryDirectory() as folder:
        try:
            path = mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=folder)
            info = mlflow.models.Model.load(Path(path))
            estimator = mlflow.sklearn.load_model(path)
        except MlflowException as error:
            raise PipelineError(f"{uri} cannot be loaded: {str(error).splitlines()[0][:300]}") from error
    if not hasattr(estimator, "predict_proba"):
        raise PipelineError(f"{uri} gives no probabilities: {type(estimator).__name__} has no predict_proba")
    column = positive_class(estimator.classes_, uri)
    flavors = info.flavors
    recorded = {
        "python": flavors.get("python_function", {}).get("python_version", ""),
        "scikit-learn": flavors.get("sklearn", {}).get("sklearn_version", ""),
    }
    return Model(
        columns=signature_of(info, uri),
        probability=lambda frame: estimator.predict_proba(frame)[:, column],
        environment=differences({name: version for name, version in recorded.items() if version}),
    )


LOADERS: dict[str, Callable[[str], Model]] = {"sklearn": _load_sklearn}
