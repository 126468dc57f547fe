"""Models of the type `tensorflow`: a Keras model with named inputs, saved in Keras' own format. Called by fit.py.

What turns words and numbers into what a network reads is layers of the model, so it travels with it. Only Keras' own
layers: MLflow would keep others as a pickle, and Keras does not load a Lambda that it has not made itself.
"""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pyarrow as pa
from mlflow.models import ModelSignature
from mlflow.types import Schema, TensorSpec

from pipelines import tensorflow_cpu
from pipelines.components.train_model.manifest import kept, type_names
from pipelines.components.train_model.repository import Repository
from pipelines.errors import PipelineError
from pipelines.model_flavors import HIGH, LOW, keras_width
from pipelines.model_inputs import tensors

PACKAGES = ("tensorflow", "keras")
EPOCHS, BATCH = 10, 256  # unless params.yaml has `epochs` and `batch_size`
TENSORS = {
    "long": "int64", "integer": "int32", "double": "float64", "float": "float32", "boolean": "bool", "string": "object"
}  # fmt: skip


def fitted(model: Any, features: pa.Table, labels: pd.Series, repository: Repository | None) -> Any:
    """The model, adapted by the repository's `adapt`, compiled if it was not, and fitted for a fixed number of epochs.

    Two trainings on the same rows give the same weights: the seed was set before `build`, and TensorFlow is told to
    be deterministic.
    """
    check(model, features.column_names)
    import_module("tensorflow").config.experimental.enable_op_determinism()
    params: Mapping[str, Any] = repository.params if repository else {}
    frame = tensors(features.to_pandas())
    if repository and repository.adapt:
        repository.adapt(model, frame)
    if not model.compiled:
        loss = "binary_crossentropy" if keras_width(model, "the model") == 1 else "sparse_categorical_crossentropy"
        model.compile(optimizer="adam", loss=loss)
    model.fit(
        frame,
        np.asarray(labels == HIGH, np.float32),
        epochs=int(params.get("epochs", EPOCHS)),
        batch_size=int(params.get("batch_size", BATCH)),
        verbose=0,
    )
    return model


def check(model: Any, columns: list[str]) -> None:
    """What can be said against a model before it is fitted."""
    if not getattr(model, "inputs", None):
        raise PipelineError(
            "build(params) returned a Keras model without named inputs; make it with keras.Input(name=...) and "
            "keras.Model(inputs, outputs)"
        )
    names = [tensor.name for tensor in model.inputs]
    if sorted(names) != sorted(columns):
        lacking, strange = sorted(set(columns) - set(names)), sorted(set(names) - set(columns))
        raise PipelineError(
            "the inputs of the Keras model are not the features: "
            f"it lacks {', '.join(lacking) or 'none'}, and has besides {', '.join(strange) or 'none'}"
        )
    keras_width(model, "the model repository's model")
    classes = {type(layer) for layer in model._flatten_layers(include_self=False)}
    if strange := sorted(f"{one.__module__}.{one.__name__}" for one in classes if not _is_keras_own(one)):
        raise PipelineError(f"the Keras model holds layers that only a pickle could keep: {', '.join(strange)}")


def save(model: Any, schema: pa.Schema, repository: Repository, output: Path) -> None:
    """In Keras' own format, with the names of the two classes, which the file does not have."""
    inputs = Schema([TensorSpec(np.dtype(TENSORS[kind]), (-1,), name) for name, kind in type_names(schema).items()])
    outputs = Schema([TensorSpec(np.dtype(np.float32), (-1, keras_width(model, "the model")))])
    with tensorflow_cpu.quiet():
        mlflow.tensorflow.save_model(
            model,
            str(output),
            signature=ModelSignature(inputs=inputs, outputs=outputs),
            **kept(repository, PACKAGES, classes=[LOW, HIGH]),
        )


def _is_keras_own(layer: type) -> bool:
    return layer.__module__.split(".")[0] == "keras" and layer.__name__ != "Lambda"
