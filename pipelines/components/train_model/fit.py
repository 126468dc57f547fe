"""A repository's estimator + a training set → a model in MLflow's own format, as a folder. Called by component.py.

Saved with skops: scikit-learn's, scipy's and numpy's types are trusted, a type of the repository's own only when
model.py names it in TRUSTED_TYPES. Nothing is pickled. The repository's code goes along, so that a model which needs
it loads elsewhere.
"""

import tempfile
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import skops.io
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from sklearn.compose import make_column_transformer
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from pipelines.components.train_model.repository import Repository, open_repository, unpack
from pipelines.errors import PipelineError
from pipelines.report import Step

NOT_FEATURES = ("user_id", "event_timestamp", "income")
OWN = ("sklearn.", "numpy.", "scipy.")
HARMLESS = ("builtins.object",)  # the dtype that a column selector looks for
PACKAGES = ("mlflow", "scikit-learn", "numpy", "pandas", "scipy", "skops")
TYPES = {
    "int64": "long",
    "int32": "integer",
    "double": "double",
    "float": "float",
    "string": "string",
    "large_string": "string",
    "bool": "boolean",
}


def train(code: str, training_set: str, output: str, step: Step) -> None:
    """Fits the estimator of the code on the training set and saves it in the folder `output`."""
    table = pq.read_table(training_set, partitioning=None)
    features = table.drop_columns(list(NOT_FEATURES))
    with tempfile.TemporaryDirectory() as folder:
        repository = open_repository(unpack(Path(code), Path(folder)))
        estimator = fit(repository.estimator, features, table.column("income").to_pandas())
        save(estimator, features.schema, repository, Path(output))
    step.facts |= {"rows": table.num_rows, "params": repository.params, "estimator": type(estimator).__name__}


def fit(estimator: Any, features: pa.Table, labels: pd.Series) -> Any:
    """The estimator, fitted, with what it lacks to read words and numbers put before it."""
    chosen = estimator if reads_columns(estimator) else behind_encoding(estimator, features.schema)
    try:
        fitted = chosen.fit(features.to_pandas(), labels)
    except Exception as error:
        reason = (str(error).strip().splitlines() or [""])[0][:300]
        raise PipelineError(
            f"fitting the model repository's estimator failed: {type(error).__name__}: {reason}"
        ) from error
    if not hasattr(fitted, "predict_proba"):
        raise PipelineError(
            f"the model repository's estimator gives no probabilities: {type(estimator).__name__} has no predict_proba"
        )
    return fitted


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
    """An MLflow model with its signature, exact requirements and the repository's code."""
    code = [
        str(path)
        for path in sorted(repository.folder.iterdir())
        if path.suffix == ".py" or (path / "__init__.py").exists()
    ]
    with warnings.catch_warnings():
        # Integer columns could be missing in general; here a row with a missing value is never scored.
        warnings.filterwarnings("ignore", message="(?s).*integer column", category=UserWarning)
        mlflow.sklearn.save_model(
            estimator,
            str(output),
            signature=signature(schema),
            serialization_format="skops",
            skops_trusted_types=trusted_types(estimator, repository.trusted_types),
            pip_requirements=pinned(repository.requirements),
            code_paths=code,
            metadata={"params": repository.params},
        )


def pinned(requirements: tuple[str, ...]) -> list[str]:
    """One line a package, with the version that was trained with:

    given two lines for one, MLflow would run pip to compare them.
    """
    wanted = [Requirement(line) for line in requirements]
    names = {canonicalize_name(item.name) for item in wanted if not item.marker or item.marker.evaluate()}
    return [f"{name}=={version(name)}" for name in sorted(names | set(PACKAGES))]


def signature(schema: pa.Schema) -> Any:
    """The features by name and type, in order, and the class that comes out."""
    if strange := [f"{field.name} ({field.type})" for field in schema if str(field.type) not in TYPES]:
        raise PipelineError(f"features of a type that no model can name: {', '.join(strange)}")
    inputs = Schema([ColSpec(TYPES[str(field.type)], field.name) for field in schema])
    return ModelSignature(inputs=inputs, outputs=Schema([ColSpec("string")]))


def trusted_types(estimator: Any, vouched: tuple[str, ...]) -> list[str]:
    """The types that loading must be allowed to make, or an error that names those nobody vouched for."""
    try:
        found = skops.io.get_untrusted_types(data=skops.io.dumps(estimator))
    except Exception as error:
        raise PipelineError(
            f"the estimator cannot be saved with skops: {type(error).__name__}; see pipelines/README.md"
        ) from error
    if strange := [name for name in found if not name.startswith(OWN) and name not in (*HARMLESS, *vouched)]:
        raise PipelineError(
            f"the estimator holds types that are not scikit-learn's: {', '.join(strange)}. "
            "If they are yours, vouch for them in model.py: TRUSTED_TYPES = [...]"
        )
    return sorted(found)
