"""A saved model, loaded and checked against the features before it scores anything.

Called by run_inference (a registered version), by evaluate_model (the folder that train_model left) and by
compare_models (both). How each of MLflow's flavours scores: `pipelines.model_flavors`. Loading a model runs its code:
the registry must be trusted.
"""

import json
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.types import TensorSpec

from pipelines.errors import PipelineError
from pipelines.model_environment import differences, recorded
from pipelines.model_flavors import SCORERS
from pipelines.registry_errors import artifacts, loading, registry

REFERENCE = "reference.json"  #: beside MLmodel: what the training data looked like, see pipelines.sketch

# Which Arrow types may stand for a type in a model's signature: the same, or one that becomes it without loss.
ACCEPTED = {
    "long": {"int64", "int32", "int16", "int8"},
    "integer": {"int32", "int16", "int8"},
    "double": {"double", "float", "int32", "int16", "int8"},
    "float": {"float", "int16", "int8"},
    "string": {"string", "large_string"},
    "boolean": {"bool"},
}

# What a tensor's type, which is numpy's, is called in a signature of columns.
TENSORS = {
    "int64": "long", "int32": "integer", "float64": "double", "float32": "float", "bool": "boolean",
    "object": "string", "str": "string",
}  # fmt: skip


@dataclass(frozen=True)
class Model:
    """What scores: its columns with their types, in its own order, and P(>50K), float64, of a frame of them."""

    columns: Mapping[str, str]
    probability: Callable[[pd.DataFrame], np.ndarray]
    environment: dict[str, dict[str, str]]  #: library → its version in the model and here, where they differ
    model_type: str = ""
    reference: dict[str, Any] | None = None  #: the content of reference.json, if the model has one


def resolve(name: str, version: int, alias: str) -> int:
    """The version to use: the one given, or, if that is 0, the one that the alias stands for at this moment."""
    if version > 0:
        return version
    if version < 0 or not alias:
        raise PipelineError(f"which version of {name}? model_version is {version} and model_alias is {alias!r}")
    with registry(f"models:/{name}@{alias}"):
        return int(mlflow.MlflowClient().get_model_version_by_alias(name, alias).version)


def load_model(name: str, version: int, model_type: str = "") -> Model:
    """`models:/name/version` as a scorer; of the given type, or of the one that is found there."""
    _check_type(model_type)
    uri = f"models:/{name}/{version}"
    with registry(uri):
        mlflow.MlflowClient().get_model_version(name, str(version))
    with tempfile.TemporaryDirectory() as folder:
        with artifacts(uri):
            path = mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=folder)
        return load_folder(path, uri, model_type)


def load_folder(folder: str | Path, uri: str = "the model", model_type: str = "") -> Model:
    """A model that MLflow saved in a folder; `uri` is what errors call it."""
    _check_type(model_type)
    path = Path(folder)
    with loading(uri):
        info = mlflow.models.Model.load(path)
    found = _type_of(info, model_type, uri)
    columns = signature_of(info, uri)
    _forget_code(path / "code")
    probability = SCORERS[found](path, info, uri)
    noted = differences(recorded(path, info, found))
    return Model(columns, probability, noted, found, _reference(path / REFERENCE, uri))


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
    return {column.name: _type_name(column, uri) for column in info.signature.inputs.inputs}


def _type_name(column: Any, uri: str) -> str:
    if not isinstance(column, TensorSpec):
        return str(getattr(column.type, "name", column.type))
    if any(size not in (-1, 1) for size in column.shape[:2]) or len(column.shape) > 2:
        raise PipelineError(f"{uri} wants a tensor of shape {column.shape} as {column.name}; a feature is one value")
    return TENSORS.get("str" if column.type.kind == "U" else column.type.name, column.type.name)


def _check_type(model_type: str) -> None:
    if model_type and model_type not in SCORERS:
        raise PipelineError(f"model_type {model_type!r} is not known; it can be: {', '.join(SCORERS)}")


def _type_of(info: Any, wanted: str, uri: str) -> str:
    found = [name for name in SCORERS if name in info.flavors]
    if not found:
        others = ", ".join(sorted(info.flavors)) or "none"
        raise PipelineError(f"{uri} cannot be scored: its flavours are {others}; one must be {', '.join(SCORERS)}")
    if wanted and wanted not in found:
        raise PipelineError(f"{uri} is no {wanted} model; set model_type to {found[0]!r}, or leave it out")
    return wanted or found[0]


def _forget_code(folder: Path) -> None:
    """Modules of another model's code under the same names, such as `model`: this one's must be imported instead."""
    if folder.is_dir():
        for name in {path.stem if path.suffix == ".py" else path.name for path in folder.iterdir()}:
            for module in [known for known in sys.modules if known == name or known.startswith(f"{name}.")]:
                del sys.modules[module]


def _reference(path: Path, uri: str) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise PipelineError(f"{REFERENCE} of {uri} is no JSON object; remove it or write it anew (pipelines.sketch)")
    return document
