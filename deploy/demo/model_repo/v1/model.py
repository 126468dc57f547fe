"""The demo's first model: logistic regression over one-hot and scaled columns."""

from typing import Any

from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler


def build(params: dict[str, Any]) -> Pipeline:
    """An unfitted estimator; a Pipeline gets the feature columns as they are."""
    columns = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore"), make_column_selector(dtype_include=object)),
        (StandardScaler(), make_column_selector(dtype_include="number")),
    )
    return make_pipeline(columns, LogisticRegression(max_iter=params.get("max_iter", 300), C=params.get("C", 1.0)))
