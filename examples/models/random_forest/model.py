"""A random forest over one-hot words and plain numbers: a model of the type `sklearn`."""

from typing import Any

from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder


def build(params: dict[str, Any]) -> Pipeline:
    """An unfitted estimator; a Pipeline gets the feature columns as they are."""
    columns = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore"), make_column_selector(dtype_include=object)),
        remainder="passthrough",
    )
    forest = RandomForestClassifier(
        n_estimators=params.get("n_estimators", 50), min_samples_leaf=params.get("min_samples_leaf", 20), random_state=0
    )
    return make_pipeline(columns, forest)
