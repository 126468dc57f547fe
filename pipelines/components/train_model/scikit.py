"""Models of the type `sklearn`: fitted as they are, or behind an encoding; saved with skops. Called by fit.py.

scikit-learn's, scipy's and numpy's types are trusted, a type of the repository's own only when model.py names it in
TRUSTED_TYPES. So a random forest, which MLflow by itself refuses to save, is saved with its types named.
"""

from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pyarrow as pa
import skops.io
from sklearn.compose import make_column_transformer
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from pipelines.components.train_model.manifest import TYPES, kept, signature
from pipelines.components.train_model.repository import Repository
from pipelines.errors import PipelineError

OWN = ("sklearn.", "numpy.", "scipy.")
HARMLESS = ("builtins.object",)  # the dtype that a column selector looks for
PACKAGES = ("scikit-learn", "scipy", "skops")


def fitted(estimator: Any, features: pa.Table, labels: pd.Series, repository: Repository | None) -> Any:
    """The estimator, fitted, with what it lacks to read words and numbers put before it."""
    del repository
    chosen = estimator if reads_columns(estimator) else behind_encoding(estimator, features.schema)
    made = chosen.fit(features.to_pandas(), labels)
    if not hasattr(made, "predict_proba"):
        raise PipelineError(
            f"the model repository's estimator gives no probabilities: {type(estimator).__name__} has no predict_proba"
        )
    return made


def reads_columns(estimator: Any) -> bool:
    """A Pipeline, or a search over one, takes the feature columns as they are."""
    return isinstance(estimator, Pipeline) or (hasattr(estimator, "estimator") and reads_columns(estimator.estimator))


def behind_encoding(estimator: Any, schema: pa.Schema) -> Any:
    """Any other estimator gets one-hot words and scaled numbers."""
    words = [field.name for field in schema if TYPES.get(str(field.type)) == "string"]
    numbers = [field.name for field in schema if field.name not in words]
    encoding = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore", sparse_output=False), words), (StandardScaler(), numbers)
    )
    return make_pipeline(encoding, estimator)


def save(estimator: Any, schema: pa.Schema, repository: Repository, output: Path) -> None:
    """In skops' format, which names every type that loading makes."""
    mlflow.sklearn.save_model(
        estimator,
        str(output),
        signature=signature(schema, "string"),
        serialization_format="skops",
        skops_trusted_types=trusted_types(estimator, repository.trusted_types),
        **kept(repository, PACKAGES),
    )


def trusted_types(estimator: Any, vouched: tuple[str, ...]) -> list[str]:
    """The types that loading must be allowed to make, or an error that names those nobody vouched for."""
    try:
        found = skops.io.get_untrusted_types(data=skops.io.dumps(estimator))
    except Exception as error:
        raise PipelineError(
            f"the estimator cannot be saved with skops: {type(error).__name__}; see docs/models.md"
        ) from error
    if strange := [name for name in found if not name.startswith(OWN) and name not in (*HARMLESS, *vouched)]:
        raise PipelineError(
            f"the estimator holds types that are not scikit-learn's: {', '.join(strange)}. "
            "If they are yours, vouch for them in model.py: TRUSTED_TYPES = [...]"
        )
    return sorted(found)
