"""A repository's estimator + a training set → a model in MLflow's own format, as a folder. Called by component.py.

What differs from one type of model to the next stands in scikit.py, boosting.py and network.py; which one it is, the
object that `build` returned tells. Nothing is pickled. The repository's code goes along, so that a model which needs it
loads elsewhere.
"""

import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.components.train_model import boosting, network, scikit
from pipelines.components.train_model.repository import Repository, open_repository, unpack, where
from pipelines.errors import PipelineError
from pipelines.report import Step
from pipelines.slices import check_slices

NOT_FEATURES = ("user_id", "event_timestamp", "income")

# Where a class was defined → the type of its models. Told by name: their libraries may not even be installed.
TYPES = {"xgboost": "xgboost", "keras": "tensorflow"}
MAKERS: dict[str, ModuleType] = {"sklearn": scikit, "xgboost": boosting, "tensorflow": network}


def train(code: str, training_set: str, output: str, step: Step, slices: Sequence[str] = ()) -> None:
    """Fits the estimator of the code on the training set and saves it in the folder `output`.

    The `slices` are for the steps that follow; one that cannot be is said before anything is fitted.
    """
    table = pq.read_table(training_set, partitioning=None)
    check_slices(table.schema, slices)
    features = table.drop_columns(list(NOT_FEATURES))
    with tempfile.TemporaryDirectory() as folder:
        repository = open_repository(unpack(Path(code), Path(folder)))
        estimator = fit(repository.estimator, features, table.column("income").to_pandas(), repository)
        save(estimator, features.schema, repository, Path(output))
    step.facts |= {
        "rows": table.num_rows,
        "params": repository.params,
        "estimator": type(estimator).__name__,
        "model_type": type_of(estimator),
    }


def type_of(estimator: Any) -> str:
    """`xgboost`, `tensorflow`, and `sklearn` for everything else that has a `fit`."""
    found = [TYPES[root] for one in type(estimator).__mro__ if (root := one.__module__.partition(".")[0]) in TYPES]
    return found[0] if found else "sklearn"


def fit(estimator: Any, features: pa.Table, labels: pd.Series, repository: Repository | None = None) -> Any:
    """The estimator, fitted, and sure to give probabilities. Of the repository a Keras model takes how it is taught.

    What an error of it says may quote a row, so only its kind and its place are told.
    """
    try:
        fitted = MAKERS[type_of(estimator)].fitted(estimator, features, labels, repository)
    except PipelineError:
        raise
    except (Exception, SystemExit) as error:
        kind = "it called sys.exit" if isinstance(error, SystemExit) else type(error).__name__
        at = where(error, repository.folder) if repository else ""
        raise PipelineError(
            f"fitting the model repository's estimator failed: {kind}{at}; the run's log has the traceback"
        ) from error
    return fitted


def save(estimator: Any, schema: pa.Schema, repository: Repository, output: Path) -> None:
    """An MLflow model with its signature, exact requirements and the repository's code."""
    with warnings.catch_warnings():
        # Integer columns could be missing in general; here a row with a missing value is never scored.
        warnings.filterwarnings("ignore", message="(?s).*integer column", category=UserWarning)
        MAKERS[type_of(estimator)].save(estimator, schema, repository, output)
