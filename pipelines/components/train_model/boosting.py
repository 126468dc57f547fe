"""Models of the type `xgboost`: an XGBClassifier, fitted on categories and saved by XGBoost itself. Called by fit.py.

Words become XGBoost's own categories. The model file holds them, so that what scores later needs nothing else; a word
that was not there at the training counts as missing.
"""

from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pyarrow as pa

from pipelines.components.train_model.manifest import kept, signature
from pipelines.components.train_model.repository import Repository
from pipelines.errors import PipelineError
from pipelines.model_flavors import HIGH, LOW, check_objective
from pipelines.model_inputs import coded, vocabularies

PACKAGES = ("xgboost", "scikit-learn")  # its XGBClassifier is a scikit-learn estimator


def fitted(estimator: Any, features: pa.Table, labels: pd.Series, repository: Repository | None) -> Any:
    """The classifier, fitted on 0 for `<=50K` and 1 for `>50K`."""
    del repository
    if not hasattr(estimator, "predict_proba"):
        raise PipelineError(
            f"the model repository's estimator gives no probabilities: {type(estimator).__name__} is no XGBClassifier"
        )
    if estimator.early_stopping_rounds is not None:
        raise PipelineError(
            "early_stopping_rounds needs a set to stop by, which the training does not keep back; leave it out, "
            "and set n_estimators"
        )
    frame = features.to_pandas()
    estimator.set_params(enable_categorical=True)
    estimator.fit(coded(frame, vocabularies(frame)), (labels == HIGH).astype(int))
    check_objective(estimator.get_booster(), "the model repository's estimator")
    return estimator


def save(estimator: Any, schema: pa.Schema, repository: Repository, output: Path) -> None:
    """In XGBoost's own format, with the names of the two classes, which the file does not have."""
    details = kept(repository, PACKAGES, classes=[LOW, HIGH])
    mlflow.xgboost.save_model(estimator, str(output), signature=signature(schema, "long"), **details)
