"""How each of MLflow's flavours that we read gives P(>50K). Called by registered_model.py.

A scorer takes the saved model's folder, its MLmodel and what errors call it, and returns a function of a frame with
the model's columns. A library is imported only when a model of its type is at hand: TensorFlow alone takes seconds.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd

from pipelines import tensorflow_cpu
from pipelines.errors import PipelineError
from pipelines.model_inputs import coded, tensors, words
from pipelines.registry_errors import loading

HIGH, LOW = ">50K", "<=50K"
NUMBERED = (["0", "1"], ["0.0", "1.0"], ["False", "True"])  # classes of a model that was fitted on flags
BATCH = 8192  # rows that Keras takes at once: more is not faster on a CPU

Probability = Callable[[pd.DataFrame], np.ndarray]


def positive_class(classes: Any, uri: str) -> int:
    """Which of a model's classes is `>50K`."""
    names = [str(name) for name in classes]
    if sorted(names) != [LOW, HIGH]:
        raise PipelineError(f"{uri} tells {', '.join(names[:5])} apart; this pipeline needs {LOW} and {HIGH}")
    return names.index(HIGH)


def _sklearn(folder: Path, info: Any, uri: str) -> Probability:
    with loading(uri):
        estimator = mlflow.sklearn.load_model(str(folder))
    if not hasattr(estimator, "predict_proba"):
        raise PipelineError(f"{uri} gives no probabilities: {type(estimator).__name__} has no predict_proba")
    numbered = [str(name) for name in estimator.classes_] in NUMBERED
    column = positive_class(_class_names(info, uri) if numbered else estimator.classes_, uri)
    taught = getattr(estimator, "feature_names_in_", ())
    return _explained(lambda frame: estimator.predict_proba(frame)[:, column], taught, uri)


def _xgboost(folder: Path, info: Any, uri: str) -> Probability:
    """An XGBClassifier or a Booster. The words of its columns are in the model itself, since XGBoost 3.1."""
    with loading(uri):
        model = mlflow.xgboost.load_model(str(folder))
        booster = model.get_booster() if hasattr(model, "get_booster") else model
    check_objective(booster, uri)
    of_one = positive_class(_class_names(info, uri), uri) == 1
    known = {name: found.to_pylist() for name, found in _categories(booster) if found is not None}

    def probability(frame: pd.DataFrame) -> np.ndarray:
        if strange := [name for name in words(frame) if name not in known]:
            raise PipelineError(
                f"{uri} was not taught words in {', '.join(strange)}; train it on categories, with XGBoost 3.1 or newer"
            )
        rows = coded(frame, known)
        found = booster.inplace_predict(rows) if model is booster else model.predict_proba(rows)[:, 1]
        return np.asarray(found if of_one else 1 - found, np.float64)

    return _explained(probability, booster.feature_names or (), uri)


def _tensorflow(folder: Path, info: Any, uri: str) -> Probability:
    """A Keras model that ends in one sigmoid unit, or in a softmax of two."""
    keras = tensorflow_cpu.load()
    with tensorflow_cpu.quiet(), loading(uri):
        model = mlflow.tensorflow.load_model(str(folder))
    if not isinstance(model, keras.Model):
        raise PipelineError(f"{uri} is no Keras model but a {type(model).__name__}; save it with Keras")
    column = positive_class(_class_names(info, uri), uri)
    width = keras_width(model, uri)

    def probability(frame: pd.DataFrame) -> np.ndarray:
        found = np.asarray(model.predict(tensors(frame), batch_size=BATCH, verbose=0), np.float64)
        found = found.reshape(len(frame), width)
        return found[:, column] if width == 2 else found[:, 0] if column == 1 else 1 - found[:, 0]

    return _explained(probability, (), uri)


def _explained(probability: Probability, taught: Sequence[str], uri: str) -> Probability:
    """The scorer, given its columns in the order that it was `taught`, if that is known.

    What its library says of rows that it cannot take may quote one, so only what is sure is told.
    """

    def asked(frame: pd.DataFrame) -> np.ndarray:
        alike = set(taught) == set(frame.columns) and list(taught) != list(frame.columns)
        try:
            return probability(frame[list(taught)] if alike else frame)
        except PipelineError:
            raise
        except (Exception, SystemExit) as error:
            why = f"{_why(error, taught, frame)}; the run's log has the traceback"
            raise PipelineError(f"{uri} cannot score these rows: {why}") from error

    return asked


def _why(error: BaseException, taught: Sequence[str], frame: pd.DataFrame) -> str:
    if str(error).startswith("Found unknown categories"):
        return "there is a word that it was not taught; save it with an encoder that has handle_unknown set"
    if len(taught) and (others := set(taught) ^ set(frame.columns)):
        return f"its signature and what it was fitted on differ in {', '.join(sorted(map(str, others)))}"
    return "it called sys.exit" if isinstance(error, SystemExit) else type(error).__name__


def check_objective(booster: Any, uri: str) -> None:
    """That what a booster says is the probability of its class 1. Called by train_model too."""
    objective = json.loads(booster.save_config())["learner"]["objective"]["name"]
    if objective != "binary:logistic":
        raise PipelineError(f"{uri} gives no probabilities: its objective is {objective}, not binary:logistic")


def keras_width(model: Any, uri: str) -> int:
    """How many numbers a Keras model says of a row: 1 or 2, or it is an error. Called by train_model too."""
    shape = model.output_shape
    if not isinstance(shape, tuple) or len(shape) > 2 or (len(shape) == 2 and shape[1] not in (1, 2)):
        raise PipelineError(
            f"{uri} gives no probabilities: its output has the shape {shape}; "
            "it must end in one sigmoid unit, or in a softmax of two"
        )
    return shape[1] if len(shape) == 2 else 1


def _class_names(info: Any, uri: str) -> Any:
    """What the labels 0 and 1 stand for, by the metadata `classes`: such models know numbers only."""
    names = (info.metadata or {}).get("classes")
    if not isinstance(names, list):
        raise PipelineError(
            f"{uri} does not say which classes its 0 and its 1 are; save it with "
            f"metadata={{'classes': ['{LOW}', '{HIGH}']}}"
        )
    return names


def _categories(booster: Any) -> Any:
    return booster.get_categories(export_to_arrow=True).to_arrow()


SCORERS: dict[str, Callable[[Path, Any, str], Probability]] = {
    "sklearn": _sklearn,
    "xgboost": _xgboost,
    "tensorflow": _tensorflow,
}
